"""How it looks: lines between the parts, no backgrounds, nothing told by a colour alone."""

CSS = """
Screen { layout: vertical; background: ansi_default; color: ansi_default; }
Static { height: 1; background: ansi_default; color: ansi_default; text-wrap: nowrap;
    text-overflow: ellipsis; }
Grid, LogPane { background: ansi_default; color: ansi_default; border: none; padding: 0;
    border-top: solid ansi_blue; border-title-color: ansi_default;
    border-title-background: ansi_default; border-title-style: bold; scrollbar-size: 0 0; }
Grid:focus, LogPane:focus { background: ansi_default; border: none;
    border-top: heavy ansi_cyan; border-title-color: ansi_default; background-tint: 0%; }
Ask, Help { align: center middle; background: transparent; }
#box { width: 80; max-width: 100%; height: auto; max-height: 100%; padding: 0 2;
    border: round ansi_cyan; background: ansi_default; }
#box Static { height: auto; text-wrap: wrap; }
"""
