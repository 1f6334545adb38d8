"""Results of the soak test: whether all conditions held, and tables of the faults and of the conditions."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from salmonn_node.lab.bench.soak_planner import Planner, Silence
    from salmonn_node.lab.bench.soak_robot import NodeUnderTest

RSS_SLACK_BYTES, FD_SLACK = 64 << 20, 16
SNAPSHOTS_AT_MOST = 4  # three are kept while a fourth is written
DISCOVERY_S = 3.0  # a node that was killed or stopped is discovered again after this time at most
WARM = 5  # warm-up samples of a life; later samples must not grow


def judge(
    robot: NodeUnderTest,
    planners: list[Planner],
    counts: Counter[str],
    problems: list[str],
    stalls: list[tuple[float, float]],
    seconds: float,
) -> dict[str, Any]:
    """End the node, and judge the campaign. `passed` says whether all conditions held.

    Args:
        robot: the node and its sensors.
        planners: the planners, all ended.
        counts: number of faults by name.
        problems: what went wrong, in words.
        stalls: (time.monotonic(), seconds) at which this process itself was held up, and for how long.
        seconds: length of the campaign.
    """
    crashes = 0 if robot.alive() else 1
    status = robot.end(signal.SIGINT) if robot.alive() else robot.process.returncode if robot.process else None
    lost = lost_calls(robot, stalls, planners)
    replies = sum((planner.ends for planner in planners), Counter())
    compared, unequal = (0, []) if crashes else _compare(robot)
    growth = [life_growth(samples) for samples in robot.samples if len(samples) > 2 * WARM]
    rss, files = max((g[0] for g in growth), default=0), max((g[1] for g in growth), default=0)
    rotated = 0 < counts["snapshots kept at most"] <= SNAPSHOTS_AT_MOST
    told = counts["full disk told"] == counts["full_disk"]
    flat = rss <= RSS_SLACK_BYTES and files <= FD_SLACK
    passed = not (crashes or status or lost or problems or unequal) and compared > 0 and flat and told and rotated
    return {
        "minutes": seconds / 60,
        "lives": robot.lives,
        "stream_s": robot.sent,
        "faults": dict(counts),
        "replies": dict(replies),
        "crashes": crashes,
        "exit_status": status,
        "replies_lost": len(lost),
        "silent_calls": lost,
        "memories_compared": compared,
        "memories_unequal": unequal,
        "full_disk_always_told": told,
        "snapshots_rotated": rotated,
        "lives_measured": len(growth),
        "rss_bytes": max((sample[0] for samples in robot.samples for sample in samples), default=0),
        "rss_of_the_longest_life_mib": _quarters(max(robot.samples, key=len, default=[])),
        "rss_growth_bytes": rss,
        "open_files_growth": files,
        "problems": problems,
        "passed": passed,
    }


def _compare(robot: NodeUnderTest) -> tuple[int, list[str]]:
    """Number of stored sessions, and names of those whose memory is not that of an uninterrupted run."""
    from salmonn_node.lab.bench.soak_stream import equals_course

    compared, unequal = 0, []
    for session, course in robot.courses.items():
        name = "default" if session == max(robot.courses) else f"default-session-{session}"
        if (robot.memories / name).is_dir():  # the oldest sessions are deleted
            compared += 1
            if not equals_course(robot.memories, name, course):
                unequal.append(name)
    return compared, unequal


def lost_calls(
    robot: NodeUnderTest, stalls: list[tuple[float, float]], planners: list[Planner]
) -> list[dict[str, Any]]:
    """Describe the calls that ended without a reply although the node could have replied."""
    return [_told(robot, stalls, call) for planner in planners for call in planner.silent if not _excused(robot, call)]


def _excused(robot: NodeUnderTest, call: Silence) -> bool:
    """Whether the node could not reply, or, for a call that was not sent, had to be discovered again."""
    after_s = 0.0 if call.sent else DISCOVERY_S
    return any(began <= call.ended and call.began <= ended + after_s for began, ended in robot.disturbed)


def _told(robot: NodeUnderTest, stalls: list[tuple[float, float]], call: Silence) -> dict[str, Any]:
    """Describe a call without a reply.

    `since_disturbed_s` is how long ago the node was last killed or stopped; `held_up_s` is for how long this process
    itself got no processor during the call.
    """
    since = [call.began - ended for _, ended in robot.disturbed if ended <= call.began]
    return {
        "call": call.call,
        "sent": call.sent,
        "timeout_s": call.timeout_s,
        "took_s": round(call.ended - call.began, 2),
        "since_disturbed_s": round(min(since, default=-1.0), 2),
        "held_up_s": round(sum(late for at, late in stalls if call.began <= at <= call.ended), 2),
    }


def _quarters(samples: list[tuple[int, int]]) -> list[float]:
    """Resident memory in MiB after warm-up, after each quarter of a life, and at its end."""
    warm = samples[WARM:]
    return [round(warm[len(warm) * n // 4 - (n == 4)][0] / 2**20, 1) for n in range(5)] if warm else []


def life_growth(samples: list[tuple[int, int]]) -> tuple[int, int]:
    """Growth in a life of the process: median of the last samples minus median of the first ones after warm-up."""
    first, last = samples[WARM : 2 * WARM], samples[-WARM:]
    middle = WARM // 2
    return tuple(sorted(s[i] for s in last)[middle] - sorted(s[i] for s in first)[middle] for i in (0, 1))  # type: ignore[return-value]


def tables(results: dict[str, Any]) -> list[Table]:
    """Make tables of the faults injected and of the conditions checked."""
    done = Table("fault", "times", title=f"{results['minutes']:.1f} minutes, {results['stream_s']} s of stream")
    for name, count in sorted(results["faults"].items()):
        done.add_row(name.replace("_", " "), str(count))
    held = Table("figure", "value", "wanted", title="passed" if results["passed"] else "FAILED")
    held.add_row("crashes", str(results["crashes"]), "0")
    held.add_row("exit status after SIGINT", str(results["exit_status"]), "0")
    held.add_row("replies", ", ".join(f"{code} {count}" for code, count in sorted(results["replies"].items())), "")
    held.add_row("replies lost", str(results["replies_lost"]), "0")
    equal = f"{results['memories_compared'] - len(results['memories_unequal'])} of {results['memories_compared']}"
    held.add_row("memories equal to an uninterrupted run", equal, "all")
    held.add_row("snapshots rotated", str(results["snapshots_rotated"]), "True")
    held.add_row("each full disk told", str(results["full_disk_always_told"]), "True")
    held.add_row("resident memory grew by", f"{results['rss_growth_bytes'] / 2**20:.1f} MiB", "64 MiB at most")
    held.add_row("in the longest life, MiB", ", ".join(map(str, results["rss_of_the_longest_life_mib"])), "")
    held.add_row("open files grew by", str(results["open_files_growth"]), f"{FD_SLACK} at most")
    for call in results["silent_calls"]:
        held.add_row("no reply", ", ".join(f"{name} {value}" for name, value in call.items()), "")
    for problem in results["problems"]:
        held.add_row("problem", problem, "")
    return [done, held]
