"""What trained networks make of one example, at any setting: the work behind the page of `demo`.

    answers = Answers(catalogue(root), device)
    answers.answer(Asked(...), superseded)     while a slider moves: one pass at a size that is fast
                                               enough; when it rests: whole, coded and measured

Models folded for a setting, pictures made and numbers measured are kept for a while. One thread at
a time may ask.
"""

from __future__ import annotations

import base64
import copy
import math
import secrets
import time
from collections.abc import Callable, Hashable
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor

from bench.conditioners import Network
from bench.files import printable
from bench.live.networks import Entry, Exhibit
from bench.live.rooms import KEPT, Folded, Kept, Room, on_device, within
from bench.method import Cell
from bench.pictures.decode import read_picture
from bench.run.work import encode_png
from bench.space import Setting
from bench.task import weighted

Number = Annotated[float, Meta(gt=-1e6, lt=1e6)]
Positive = Annotated[float, Meta(gt=1e-9, lt=1e9)]

MOST_PIXELS = 40_000_000  # of an upload; a camera's pictures have half
QUICK = 0.05  # seconds that a pass may take while a slider moves
SIDES = (64, 128, 192, 256, 384, 512, 768, 1024, 1536)  # of squares with as many pixels
FIRST = 256  # the side that is taken while no pass was timed
LATENTS = 16  # as many as are shown


class Asked(Struct, kw_only=True, forbid_unknown_fields=True):
    """A question of the page.

    input: "example:3", or the name that an upload was given. shares: of `Showing.blends`.
    latents: to be decoded in place of the input's own. rest: whole, and with numbers; else at a
    size that is fast. beside: also the fixed network trained nearest to the setting. pictures: of
    no use to a point of a curve.
    """

    exhibit: Annotated[int, Meta(ge=0)]
    input: Annotated[str, Meta(max_length=64)]
    method: Annotated[str, Meta(max_length=200)]
    setting: Annotated[tuple[Positive, ...], Meta(max_length=64)]
    shares: Annotated[tuple[Number, ...], Meta(max_length=64)] = ()
    latents: Annotated[tuple[Number, ...], Meta(max_length=1024)] | None = None
    rest: bool = False
    beside: bool = True
    pictures: bool = True


class Superseded(Exception):
    """Its answer is no longer waited for."""


class Refused(ValueError):
    """A question that has no answer; the message is for whoever asked."""


class Answers:
    """For a list of exhibits, on one device. side: the longer one of the largest picture that is
    answered for whole; larger ones are made as small."""

    def __init__(self, exhibits: list[Exhibit], device: torch.device, side: int = 768) -> None:
        self.rooms = [Room(exhibit=each) for each in exhibits]
        self.device, self.side = device, side
        self.uploads = Kept(KEPT["uploads"])

    # What there is

    def listed(self) -> list[dict[str, Any]]:
        """Every exhibit as the page needs it."""
        return [{"exhibit": place, **room.described()} for place, room in enumerate(self.rooms)]

    def inputs(self, place: int) -> list[dict[str, str]]:
        """An exhibit's test examples: their names, and what they say. Raises Refused where they
        cannot be had."""
        room = self._room(place)
        return [
            {"name": printable(name), "text": room.showing.described(batch)}
            for name, batch in self._examples(room)
        ]

    def _examples(self, room: Room) -> list[tuple[str, Any]]:
        try:
            return room.examples
        except (ValueError, OSError, RuntimeError) as error:
            raise Refused(f"its test examples cannot be had: {printable(error)}") from error

    def receive(self, place: int, data: bytes) -> dict[str, Any]:
        """Keep an upload, a picture file's bytes, and say how it is called and what became of it.
        Raises Refused where it is no picture that can be taken."""
        if not self._room(place).showing.takes:
            raise Refused("this task takes no picture: choose one of its test examples")
        pixels = read_picture(data, MOST_PIXELS)
        if isinstance(pixels, str):
            raise Refused(f"this picture cannot be used: {pixels}")
        if min(pixels.shape[1:]) < 16:
            raise Refused("this picture cannot be used: it has a side of fewer than 16 pixels")
        height, width = pixels.shape[1:]
        picture = within(torch.from_numpy(pixels)[None] / 255, self.side**2, self.side)[0]
        name = secrets.token_hex(8)
        self.uploads.get_or(name, lambda: picture)
        return {"input": name, "width": width, "height": height,
                "taken": [picture.shape[2], picture.shape[1]]}  # fmt: skip

    def original(self, asked: Asked) -> bytes | None:
        """The PNG of the example itself, as large as the answer at rest; None without a picture."""
        room = self._room(asked.exhibit)
        return encode_png(room.showing.original(self._batch(room, asked, None)))

    # An answer

    @torch.no_grad()
    def answer(self, asked: Asked, superseded: Callable[[], bool]) -> dict[str, Any]:
        """Raises Superseded between two steps where `superseded` says so, and Refused."""
        room = self._room(asked.exhibit)
        exhibit = room.exhibit
        entry, setting = self._entry(room, asked.method), asked.setting
        if len(setting) != len(exhibit.task.space.axes):
            raise Refused(f"{len(setting)} values for the axes {exhibit.task.space.names}")

        def step() -> None:
            if superseded():
                raise Superseded

        # A grid answers with the network that is nearest; its label says so.
        fixed = entry.method.role == "reference"
        sides = {"own": (entry, entry.nearest(setting) if fixed else setting)}
        if asked.beside and exhibit.reference is not None:
            sides["beside"] = (exhibit.reference, exhibit.reference.nearest(setting))
        reply: dict[str, Any] = {
            "rest": asked.rest,
            "also": room.showing.also(setting),
            "outside": exhibit.task.space.outside(setting),
        }
        pixels = None if asked.rest else self._quick_pixels(room, sides)
        for name, (used, at) in sides.items():
            step()
            reply[name] = {"setting": list(at), "method": used.label}
            if asked.pictures:
                reply[name] |= self._picture(room, asked, used, at, pixels)
        if asked.rest and asked.latents is None:
            for name, (used, at) in sides.items():
                step()
                reply[name] |= self._numbers(room, asked, used, at)
        return reply

    def _quick_pixels(self, room: Room, sides: dict[str, tuple[Entry, Setting]]) -> int:
        """As many as are fast for both sides; few sizes, so that what is kept can be used."""
        paces = [room.pace.get(used.label, 0.0) for used, _ in sides.values()]
        if not max(paces):
            return FIRST**2
        fast = [side for side in SIDES if side**2 * max(paces) <= QUICK]
        return fast[-1] ** 2 if fast else SIDES[0] ** 2

    def _picture(
        self, room: Room, asked: Asked, entry: Entry, at: Setting, pixels: int | None
    ) -> dict[str, Any]:
        """What a model makes of the input, of at most so many pixels: a PNG as text, its size, the
        latents, and the seconds that the steps took."""

        def make() -> dict[str, Any]:
            batch = self._batch(room, asked, pixels)
            folded = self._folded(room, entry, at)
            model = folded.model
            clock = time.perf_counter()
            latents = room.showing.latents(model, batch)
            if asked.latents is None:
                picture = room.showing.picture(model, batch)
            else:
                if latents is None or len(asked.latents) != len(latents):
                    raise Refused("these are no latents of this network")
                moved = torch.tensor(asked.latents, device=self.device)
                picture = room.showing.decoded(model, moved)
            self._wait()
            seconds = time.perf_counter() - clock
            made: dict[str, Any] = {"switch": folded.seconds, "seconds": seconds, "picture": None}
            if latents is not None and len(latents) <= LATENTS and latents.isfinite().all():
                made["latents"] = [round(value, 4) for value in latents.tolist()]
            if picture is not None:
                size = picture.shape[-2:].numel()
                if asked.latents is None:
                    before = room.pace.get(entry.label, math.inf)
                    room.pace[entry.label] = min(before, seconds / size)  # the first is slow
                made |= {"width": picture.shape[-1], "height": picture.shape[-2]}
                made["picture"] = _as_text(picture)
            return made

        key = (*self._key(asked), entry.label, at, pixels, asked.latents)
        return room.pictures.get_or(key, make)

    def _numbers(self, room: Room, asked: Asked, entry: Entry, at: Setting) -> dict[str, Any]:
        """The measures of a model at the setting that is asked for, and why some are missing."""

        def make() -> dict[str, Any]:
            batch = self._batch(room, asked, None)
            folded = self._folded(room, entry, at)
            task, clock = room.exhibit.task, time.perf_counter()
            try:
                if not folded.ready:
                    task.ready(folded.model)
                    folded.ready = True
                values = room.showing.measured(folded.model, batch, asked.setting)
            except (RuntimeError, ValueError, OSError) as error:
                return {"measures": {}, "missing": printable(error)}
            if all(name in values for name in task.terms):
                terms = {name: torch.tensor([values[name]]) for name in task.terms}
                loss = weighted(task.space, terms, torch.tensor([asked.setting]))
                values = {"loss": loss.item(), **values}
            finite = {name: value for name, value in values.items() if np.isfinite(value)}
            return {
                "measures": finite,
                "missing": printable(room.showing.lacking()),
                "measuring": time.perf_counter() - clock,
            }

        key = (*self._key(asked), entry.label, at, asked.setting)
        return room.numbers.get_or(key, make)

    def _folded(self, room: Room, entry: Entry, at: Setting) -> Folded:
        """The plain model of a method at a setting."""

        def network(cell: Cell) -> Network:
            key = str(entry.stored_of(cell).folder)
            return room.networks.get_or(key, lambda: entry.network(cell))

        def make() -> Folded:
            cells = entry.used(at)
            loaded = bool(entry.settings)
            clock = time.perf_counter()
            if loaded:
                networks = [entry.network(cell) for cell in cells]
            else:
                kept = [network(cell) for cell in cells]
                clock = time.perf_counter()
                networks = [copy.deepcopy(each) for each in kept]
            task = room.exhibit.task
            model = entry.method.at(task, cells, networks, at).to(self.device).eval()
            self._wait()
            return Folded(model=model, seconds=time.perf_counter() - clock)

        return room.models.get_or((entry.label, at), make)

    # What it is asked of

    def _room(self, place: int) -> Room:
        if not 0 <= place < len(self.rooms):
            raise Refused("there is no such task here: load the page again")
        return self.rooms[place]

    def _entry(self, room: Room, label: str) -> Entry:
        try:
            return room.exhibit.methods[label]
        except KeyError:
            raise Refused("there is no such method here: load the page again") from None

    def _key(self, asked: Asked) -> tuple[Hashable, ...]:
        return asked.input, asked.shares

    def _batch(self, room: Room, asked: Asked, pixels: int | None) -> Any:
        """The input as a batch of one on the device, of at most so many pixels."""
        key = (*self._key(asked), pixels)
        return room.inputs.get_or(key, lambda: self._made_batch(room, asked, pixels))

    def _made_batch(self, room: Room, asked: Asked, pixels: int | None) -> Any:
        showing = room.showing
        kind, _, number = asked.input.partition(":")
        if kind == "example":
            examples = self._examples(room)
            if not number.isdecimal() or int(number) >= len(examples):
                raise Refused("there is no such example: load the page again")
            batch = examples[int(number)][1]
            picture = showing.original(batch) if showing.takes else None
        elif asked.input in self.uploads:
            picture, batch = self.uploads[asked.input], None
        else:
            raise Refused("this picture is no longer kept: give it again")
        if picture is not None:
            few = within(picture[None], pixels or self.side**2, self.side)[0]
            if batch is None or few.shape != picture.shape:
                batch = showing.received(few)
        if showing.blends:
            shares = self._shares(asked, len(showing.blends))
            batch = showing.blended(batch, shares)
        return on_device(batch, self.device)

    def _shares(self, asked: Asked, count: int) -> tuple[float, ...]:
        shares = asked.shares or (1.0, *(0.0 for _ in range(count - 1)))
        if len(shares) != count or min(shares) < 0 or abs(sum(shares) - 1) > 1e-3:
            raise Refused(f"shares of {count} paintings are not below 0 and sum to 1")
        return shares

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _as_text(picture: Tensor) -> str:
    return base64.b64encode(encode_png(picture, effort=1) or b"").decode()
