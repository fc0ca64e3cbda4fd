"""Prints as many lines as its client says, numbered, in pieces that end anywhere."""

import os
import socket
import sys
import threading

printed = 0
answered = threading.Event()  # whoever said "leave"


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("r") as lines:
            word, _, rest = lines.readline().strip().partition(" ")
            act(word, rest)
            connection.sendall(f"{os.environ['RRDISPATCH_SLOT']} {os.getpid()} {printed}".encode())
        if word == "leave":
            answered.set()


def act(word: str, rest: str) -> None:
    if word == "lines":
        count, size = map(int, rest.split())
        talk(count, size)
    elif word == "both":
        print("to stdout", rest, flush=True)
        print("to stderr", rest, file=sys.stderr, flush=True)
    elif word == "raw":
        os.write(1, bytes.fromhex(rest))
    elif word == "leave":
        count, size = map(int, rest.split())
        threading.Thread(target=talk_and_leave, args=(count, size)).start()


def talk_and_leave(count: int, size: int) -> None:
    talk(count, size)
    answered.wait()
    os._exit(7)


def talk(count: int, size: int) -> None:
    global printed
    pid = os.getpid()
    text = "".join(
        f"{pid} {number} ".ljust(size - 1, "x") + "\n" for number in range(printed, printed + count)
    ).encode()
    printed += count
    place = 0
    while place < len(text):
        place += os.write(1, text[place : place + 10_007])
