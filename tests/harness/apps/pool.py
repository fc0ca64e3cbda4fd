"""A FastAPI app with plain ``def`` routes: each runs in the event loop's pool of 40 threads."""

from __future__ import annotations

import os
import time

from fastapi import FastAPI, Response

app = FastAPI()
PLACE = {"x-pid": str(os.getpid()), "x-slot": os.environ.get("RRDISPATCH_SLOT", "-1")}


@app.get("/")
def quick(response: Response) -> str:
    response.headers.update(PLACE)
    return "quick"


@app.get("/block/{milliseconds}")
def block(milliseconds: int, response: Response) -> str:
    response.headers.update(PLACE)
    time.sleep(milliseconds / 1000)
    return "slow"
