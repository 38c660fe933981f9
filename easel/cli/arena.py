"""`easel arena`: pairs, votes, and who takes part."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from easel.battles import read_battles
from easel.cli import screen
from easel.cli.classifying import Model
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import EPILOG
from easel.cli.files import suffix_of, write_new
from easel.cli.generate import (
    Adapters,
    Guidance,
    Height,
    Negative,
    Sampler,
    Show,
    Steps,
    Width,
    generate_options,
    show_or_say,
)
from easel.cli.judging import (
    JudgeLabel,
    JudgeLike,
    JudgeReward,
    JudgeText,
    JudgeWeight,
    read_judges,
)
from easel.cli.leaderboard import Intent, estimate_json
from easel.cli.terminal import wants_pictures
from easel.client import Client, GenerateOptions
from easel.ranker.v1 import ranker_pb2
from easel.report import score_text

_CHOICES: Final = {"l": "left", "r": "right", "t": "tie"}

app = typer.Typer(
    help="Compare models and settings by votes on pairs of their pictures.",
    epilog=EPILOG,
    no_args_is_help=True,
)

JudgeName = Annotated[
    str, typer.Option("--judge", help="Who votes; nobody in particular if unset.")
]
Name = Annotated[str, typer.Argument(help="The contender's name.")]


@app.command("add", epilog=EPILOG)
def add(
    name: Name,
    given: Annotated[
        bool, typer.Option("--given", help="Its pictures are given, not made by the generator.")
    ] = False,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = "",
    negative: Negative = "",
    width: Width = None,
    height: Height = None,
    adapter: Adapters = None,
    model: Model = "",
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Let a model with its settings take part, under a name."""
    options: GenerateOptions | None = None
    if not given:
        options = generate_options(
            negative, steps, guidance, sampler, None, width, height, "", model
        )
        options["adapters"] = adapter or []
    with connected(target, api_key, timeout, as_json) as client:
        answer = client.put_contender(name, options, intent=intent)
    if as_json:
        screen.print_json({"contender": _contender_json(answer.contender), "new": answer.created})
        return
    screen.out().print(
        screen.plain(f"{name} takes part{'' if answer.created else ' already'}"), soft_wrap=True
    )


@app.command("remove", epilog=EPILOG)
def remove(
    name: Name,
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Let a contender take part no more; its votes stay."""
    with connected(target, api_key, timeout, as_json) as client:
        answer = client.delete_contender(name, intent=intent)
    if as_json:
        gone = {"withdrawn": answer.withdrawn, "pictures_deleted": answer.pictures_deleted}
        screen.print_json(gone)
        return
    told = "is withdrawn; its votes stay" if answer.withdrawn else "is gone; it had no votes"
    screen.out().print(screen.plain(f"{name} {told}"), soft_wrap=True)


@app.command("list", epilog=EPILOG)
def list_contenders(
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """List who takes part, and with what."""
    with connected(target, api_key, timeout, as_json) as client:
        found = client.contenders(intent)
    if as_json:
        screen.print_json(
            {
                "contenders": [_contender_json(each) for each in found.contenders],
                "prompts": found.prompts,
                "votes": found.votes,
            }
        )
        return
    table = screen.table("contender", "settings", "pictures", "", right=["pictures"])
    for each in found.contenders:
        table.add_row(
            screen.plain(each.name),
            screen.plain(_settings_text(each)),
            str(each.pictures),
            "withdrawn" if each.withdrawn else "",
        )
    console = screen.out()
    console.print(table)
    console.print(f"{found.prompts} prompts, {found.votes} votes")


@app.command("prompts", epilog=EPILOG)
def prompts(
    texts: Annotated[list[str], typer.Argument(help="Prompts to add.")],
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Add prompts that contenders are compared on."""
    with connected(target, api_key, timeout, as_json) as client:
        answer = client.put_arena_prompts(texts, intent=intent)
    if as_json:
        screen.print_json({"added": answer.added, "prompts": answer.prompts})
        return
    screen.out().print(f"{answer.added} added, {answer.prompts} in all")


@app.command("picture", epilog=EPILOG)
def picture(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A picture of this contender's.")],
    prompt: Annotated[str, typer.Option("--prompt", help="What it was made for.")],
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Give a contender's picture for a prompt."""
    with connected(target, api_key, timeout, as_json) as client:
        is_new = client.put_arena_picture(name, prompt, file, intent=intent)
    if as_json:
        screen.print_json({"new": is_new})
        return
    screen.out().print("kept" if is_new else "it was there already")


@app.command("next", epilog=EPILOG)
def next_pair(
    prompt: Annotated[str, typer.Option(help="To compare on; one of the arena's if unset.")] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the two pictures.")] = Path(),
    show: Show = None,
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a pair, without voting; `easel arena vote TOKEN` does."""
    with connected(target, api_key, timeout, as_json) as client:
        pair = client.next_pair(intent, prompt=prompt)
        files = {
            side: str(write_new(out, side, suffix_of(image.encoded), image.encoded))
            for side, image in (("left", pair.left), ("right", pair.right))
        }
    if as_json:
        expires = pair.expires_at.ToJsonString()
        document = {"token": pair.token, "prompt": pair.prompt, "expires_at": expires, **files}
        screen.print_json(document)
        return
    console = screen.out()
    console.print(screen.plain(pair.prompt), soft_wrap=True)
    if wants_pictures(show, as_json=as_json):
        show_or_say([pair.left.encoded, pair.right.encoded], asked=bool(show))
    console.print(screen.plain(f"left {files['left']}, right {files['right']}"), soft_wrap=True)
    console.print(screen.plain(f"token {pair.token}"), soft_wrap=True)


@app.command("vote", epilog=EPILOG)
def vote(
    token: Annotated[str, typer.Argument(help="Of the pair.")],
    choice: Annotated[str, typer.Argument(help="left, right or tie.")],
    judge: JudgeName = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Vote on a pair; tells who made which."""
    with connected(target, api_key, timeout, as_json) as client:
        told = client.vote(token, choice, judge=judge)
    if as_json:
        screen.print_json(
            {
                "left": _contender_json(told.left),
                "right": _contender_json(told.right),
                "repeated": told.repeated_call,
            }
        )
        return
    screen.out().print(screen.plain(_revealed(told)), soft_wrap=True)


@app.command("play", epilog=EPILOG)
def play(
    pairs: Annotated[int, typer.Option("--pairs", "-n", min=1, help="At most so many.")] = 10,
    prompt: Annotated[str, typer.Option(help="To compare on; the arena's own if unset.")] = "",
    judge: JudgeName = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the pictures, if they are kept.")
    ] = None,
    show: Show = None,
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
) -> None:
    """Vote on pair after pair: l, r or t for a tie; q ends."""
    with connected(target, api_key, timeout, as_json=False) as client:
        votes = _play(client, pairs, intent, prompt, judge, out, show)
    screen.out().print(f"{votes} votes")


@app.command("judge", epilog=EPILOG)
def judge_pairs(
    pairs: Annotated[int, typer.Option("--pairs", "-n", help="To vote on.")] = 10,
    label: JudgeLabel = None,
    like: JudgeLike = None,
    text: JudgeText = None,
    reward: JudgeReward = None,
    weight: JudgeWeight = None,
    name: Annotated[str, typer.Option(help="What its votes are recorded under.")] = "",
    tie_margin: Annotated[
        float, typer.Option(help="Scores that are no further apart are a tie.")
    ] = 0.0,
    prompt: Annotated[str, typer.Option(help="To compare on; the arena's own if unset.")] = "",
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Have the ranker's judges vote on pairs, under their own name."""
    told: list[ranker_pb2.JudgePairsResponse] = []
    table = screen.table("left", "vote", "right", "scores", "prompt", right=["scores"])
    with connected(target, api_key, timeout, as_json) as client:
        for each in client.judge_pairs(
            pairs,
            intent,
            judges=read_judges(label, like, text, reward, weight),
            name=name,
            tie_margin=tie_margin,
            prompt=prompt,
        ):
            told.append(each)
    if as_json:
        screen.print_json({"votes": [_judged_json(each) for each in told]})
        return
    for each in told:
        table.add_row(
            screen.plain(each.left),
            {"left": ">", "right": "<", "tie": "="}[_vote_word(each.vote)],
            screen.plain(each.right),
            f"{score_text(each.left_score)} {score_text(each.right_score)}",
            screen.plain(each.prompt),
        )
    console = screen.out()
    console.print(table)
    console.print(screen.plain(f"{len(told)} votes of {told[0].judge}"), soft_wrap=True)


@app.command("import", epilog=EPILOG)
def import_votes(
    file: Annotated[
        Path, typer.Argument(help="CSV, or JSON lines: model_a, model_b, winner, judge, id.")
    ],
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Add votes that were cast elsewhere; a file that was added before adds nothing."""
    with connected(target, api_key, timeout, as_json) as client:
        told = client.import_votes(read_battles(file), intent)
    if as_json:
        screen.print_json(
            {
                "imported": told.imported,
                "left_out": told.left_out,
                "contenders_added": told.contenders_added,
            }
        )
        return
    screen.out().print(
        f"{told.imported} votes added, {told.left_out} were there already, "
        f"{told.contenders_added} new contenders"
    )


@app.command("judges", epilog=EPILOG)
def judges(
    intent: Intent = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """List who voted, and how far they judge as the others do."""
    with connected(target, api_key, timeout, as_json) as client:
        found = client.arena_judges(intent)
    if as_json:
        screen.print_json({"judges": [_judge_json(each) for each in found]})
        return
    table = screen.table(
        "judge", "votes", "discrimination", "95 % interval", "", right=["votes", "discrimination"]
    )
    for each in found:
        own = each.discrimination
        table.add_row(
            screen.plain(each.judge),
            f"{each.votes}",
            "–" if own.abstained else f"{own.value:.2f}",
            "too few votes that others share"
            if own.abstained
            else f"{own.low:.2f} to {own.high:.2f}",
            "doubtful" if each.doubtful else "",
        )
    console = screen.out()
    console.print(table)
    console.print("1 judges as the others do, 0 guesses, below 0 is against them", style="dim")


def _play(
    client: Client,
    pairs: int,
    intent: str,
    prompt: str,
    judge: str,
    out: Path | None,
    show: bool | None,
) -> int:
    """How many votes were cast."""
    console = screen.out()
    for number in range(pairs):
        pair = client.next_pair(intent, prompt=prompt)
        console.print(screen.plain(pair.prompt), soft_wrap=True)
        shown = [pair.left.encoded, pair.right.encoded]
        if wants_pictures(show, as_json=False):
            show_or_say(shown, asked=bool(show))
        if out is not None:
            for side, data in zip(("left", "right"), shown, strict=True):
                file = write_new(out, side, suffix_of(data), data)
                console.print(screen.plain(f"{side} {file}"), soft_wrap=True)
        choice = _asked()
        if choice is None:
            return number
        console.print(screen.plain(_revealed(client.vote(pair.token, choice, judge=judge))))
    return pairs


def _asked() -> str | None:
    """The choice that is typed; None at the end."""
    while True:
        sys.stderr.write("left, right or tie (l/r/t, q ends): ")
        sys.stderr.flush()
        typed = sys.stdin.readline()
        if not typed or typed.strip().lower() in ("q", "quit"):
            return None
        word = typed.strip().lower()
        if word in _CHOICES or word in _CHOICES.values():
            return _CHOICES.get(word, word)


def _revealed(told: ranker_pb2.RecordVoteResponse) -> str:
    again = " (recorded before)" if told.repeated_call else ""
    return f"left was {_named(told.left)}, right was {_named(told.right)}{again}"


def _named(contender: ranker_pb2.Contender) -> str:
    settings = _settings_text(contender) if contender.HasField("generate") else ""
    return f"{contender.name} ({settings})" if settings else contender.name


def _settings_text(contender: ranker_pb2.Contender) -> str:
    if not contender.HasField("generate"):
        return "given pictures"
    from google.protobuf.json_format import MessageToDict

    told: dict[str, Any] = MessageToDict(contender.generate, preserving_proto_field_name=True)
    told.pop("text_to_image", None)
    return ", ".join(f"{key} {_short(value)}" for key, value in told.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_short(each) for each in value)
    if isinstance(value, dict):
        return ":".join(_short(each) for each in value.values())
    if isinstance(value, str):
        return value.removeprefix("SAMPLER_").lower() if value.startswith("SAMPLER_") else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def _vote_word(vote: int) -> str:
    return ranker_pb2.Vote.Name(vote).removeprefix("VOTE_").lower()  # type: ignore[arg-type]


def _contender_json(contender: ranker_pb2.Contender) -> dict[str, object]:
    from google.protobuf.json_format import MessageToDict

    made = contender.HasField("generate")
    return {
        "name": contender.name,
        "generate": MessageToDict(contender.generate, preserving_proto_field_name=True)
        if made
        else None,
        "withdrawn": contender.withdrawn,
        "pictures": contender.pictures,
    }


def _judge_json(row: ranker_pb2.JudgeRow) -> dict[str, object]:
    return {
        "judge": row.judge,
        "votes": row.votes,
        "discrimination": estimate_json(row.discrimination),
        "doubtful": row.doubtful,
    }


def _judged_json(each: ranker_pb2.JudgePairsResponse) -> dict[str, object]:
    return {
        "left": each.left,
        "right": each.right,
        "prompt": each.prompt,
        "vote": _vote_word(each.vote),
        "scores": [each.left_score, each.right_score],
        "judge": each.judge,
    }
