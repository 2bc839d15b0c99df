"""The status page in a real Chromium: with a real daemon behind it, and with documents of our own for states that a
daemon is hard to bring into."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.bed.browser import CHROMIUM, chromium, visit
from tests.bed.daemons import install, leading, running
from tests.bed.pages import TOKEN, canned, history, status, table

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.slow,
]

HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>\'; drop table users; --\u202eevil'
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as opened:
        yield opened


async def look_again(page: Page) -> None:
    """As when its tab comes to the front: it asks at once, so that nobody has to wait for its next turn."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def troubled(text: str = "canceling statement") -> dict[str, Any]:
    """Everything that can be wrong at once."""
    now = time.time()
    return status(
        verdict="stale", ready=False, reasons=["the target does not answer", text],
        doubts=[{"kind": "target", "about": None, "reason": text, "cure": text}], staleness_seconds=130.0,
        lag_seconds=120.0, outbox={"entries": 4211, "bytes": 1_300_000}, doorbell=False,
        target={"up": False, "reconnects": 4, "transport": "https"},
        tables={
            "users": table(10, parked=1), "trips": table(10, broken=text, doubts=[text]),
            "trip_memberships": table(1000, braked={"rows": 1000, "would_delete": 900}),
        },
        parked=[{"table": "users", "key": [text, None], "reason": text, "since": now, "tries": 3, "retry_at": now}],
        drift=[{"at": now - 900, "table": "trips", "key": [text, text], "direction": text}],
        errors=[{"at": now - 3, "kind": text, "message": text, "cure": text}],
        resync={"id": 3, "reason": text, "table": text, "done_rows": 5, "total_rows": 9, "percent": 55.6},
    )  # fmt: skip


async def test_all_is_well(browser: Browser) -> None:
    with canned() as server:
        async with visit(browser, server.url) as page:
            await expect(page.locator("#word")).to_have_text("Fresh")
            await expect(page.locator("#spoken")).to_have_text("Fresh.")
            await expect(page).to_have_title("Fresh · permission mirror")
            await expect(page.locator("#sentence")).to_have_text("Supabase equals your primary as of 0.4 s ago.")
            await expect(page.locator("#proof")).to_contain_text("Proven equal 4 minutes ago, on schedule")
            await expect(page.locator("#tables tbody tr").nth(2)).to_contain_text("131,877")
            await expect(page.locator("#reasons")).to_be_hidden()
            assert await page.locator("#age .hole").count() == 2  # before the first point, and where nobody measured
            assert (await page.locator(".staleness-line").get_attribute("d") or "").count("M") == 2


async def test_every_verdict_has_a_word_and_a_shape_of_its_own(browser: Browser) -> None:
    seen: dict[str, tuple[str, str | None]] = {}
    with canned() as server:
        async with visit(browser, server.url) as page:
            for verdict in ("fresh", "stale", "not primed", "standby", "unknown"):
                server.status = status(verdict=verdict)
                await look_again(page)
                await expect(page.locator("#word")).to_have_text(re.compile(verdict.removesuffix("by"), re.IGNORECASE))
                seen[verdict] = (await page.inner_text("#word"), await page.get_attribute("#sign .outline", "d"))
            server.answers = False
            await look_again(page)
            await expect(page.locator("#word")).to_have_text("No answer")
            seen["silent"] = (await page.inner_text("#word"), await page.get_attribute("#sign .outline", "d"))
    assert len({word for word, _ in seen.values()}) == len({shape for _, shape in seen.values()}) == len(seen) == 6


async def test_closed_channels_are_said_beside_a_fresh_copy(browser: Browser) -> None:
    with canned() as server:
        async with visit(browser, server.url) as page:
            supabase = page.locator('[data-side="target"] .detail')
            for channels, said in (("ready", "are open"), ("missing", "are closed"), ("closed", "are closed")):
                server.status = status(channels=channels)
                await look_again(page)
                await expect(supabase).to_contain_text(f"private channels {said}")
            server.status = status(channels=None)  # not known: a target of an earlier release
            await look_again(page)
            await expect(supabase).not_to_contain_text("channels")


async def test_what_rows_and_errors_carry_is_text_and_nothing_else(browser: Browser) -> None:
    with canned() as server:
        server.status = troubled(HOSTILE)
        async with visit(browser, server.url) as page:
            for place in ("#reasons", "#parked", "#drift", "#errors", "#work", "#tables"):
                await expect(page.locator(place)).to_contain_text(HOSTILE)
            assert await page.locator("img, iframe, #shown script").count() == 0


async def test_a_phone_needs_no_scrolling_to_the_side_and_the_night_is_dark(browser: Browser) -> None:
    papers = set()
    with canned() as server:
        server.status = troubled(HOSTILE + "x" * 400)
        for scheme in ("light", "dark"):
            async with visit(browser, server.url, color_scheme=scheme, **PHONE) as page:
                await expect(page.locator("#word")).to_have_text("Stale")
                papers.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
                assert await page.evaluate("document.documentElement.scrollWidth") == 360
                await page.tap("#age")
                await expect(page.locator(".pointer")).to_have_count(2)
                await page.click("#open-resync")
                assert await page.evaluate("document.querySelector('dialog').scrollWidth") <= 360
    assert len(papers) == 2


async def test_the_mouse_reads_the_chart_and_the_keyboard_is_enough(browser: Browser) -> None:
    with canned() as server:
        async with visit(browser, server.url, reduced_motion="reduce") as page:
            await expect(page.locator("#read-age .at")).to_contain_text("(newest)")
            hole = await page.locator("#age .hole").nth(1).bounding_box()
            assert hole is not None
            await page.mouse.move(hole["x"] + hole["width"] / 2, hole["y"] + 50)
            await expect(page.locator("#read-age .at")).to_contain_text("nothing measured")
            await page.mouse.move(0, 0)
            await page.focus("#charts")
            await page.keyboard.press("ArrowLeft")
            await expect(page.locator("#read-age .at")).not_to_contain_text("(newest)")
            assert "staleness" in (await page.get_attribute("#charts", "aria-valuetext") or "")
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await page.fill("#token", TOKEN)
            await page.keyboard.press("Escape")
            await expect(page.locator("dialog")).to_be_hidden()
            await expect(page.locator("#token")).to_have_value("")
            assert await page.evaluate("document.activeElement.id") == "open-resync"


async def confirmed(page: Page, token: str) -> None:
    await page.fill("#token", token)
    await page.click("#ask [type=submit]")
    await page.click("#start")


async def test_a_request_is_followed_to_its_end_in_words(browser: Browser) -> None:
    braked = {"rows": 600, "target_rows": 1000, "missing": 0, "extra": 400, "changed": 0, "unreadable": ""}
    with canned() as server:
        server.resyncs[1] = {"id": 1, "state": "waiting", "progress": {}, "result": None}
        async with visit(browser, server.url) as page:
            await page.click("#open-resync")
            await page.check("[value=table]")
            await page.select_option("#table", "trips")
            await page.check("#force")
            await page.fill("#token", TOKEN)
            await page.click("#ask [type=submit]")
            await expect(page.locator("#deed")).to_contain_text("deleted from Supabase, however much that is")
            assert server.asked == []
            await page.click("#start")
            await expect(page.locator("#followed")).to_contain_text("Request 1 waits for the daemon")
            assert server.asked == [{"table": "trips", "force": True}]
            progress = {"table": "trips", "rows_checked": 250, "rows_expected": 1000}
            server.resyncs[1] |= {"state": "running", "progress": progress}
            await expect(page.locator("#followed progress")).to_have_attribute("value", "25")
            server.resyncs[1] |= {"state": "braked", "result": {"tables": {"trips": braked | {"braked": True}}}}
            await expect(page.locator("#followed")).to_contain_text("this would delete 400 of 1,000 rows")
            await expect(page.locator("#followed progress")).to_have_count(0)


async def test_a_silent_daemon_is_not_called_fresh_and_what_is_old_is_called_old(browser: Browser) -> None:
    with canned() as server:
        async with visit(browser, server.url) as page:
            await expect(page.locator("#word")).to_have_text("Fresh")
            server.answers = False
            await expect(page.locator("#word")).to_have_text("No answer", timeout=5000)
            await expect(page.locator("#meaning")).to_contain_text("What is shown below is")
            await expect(page).to_have_title("No answer · permission mirror")
            assert "Fresh" not in await page.inner_text("body")
            server.answers = True
            await look_again(page)
            await expect(page.locator("#word")).to_have_text("Fresh")


async def test_only_what_is_new_is_asked_for_and_what_was_seen_is_kept(browser: Browser) -> None:
    async def drawn(page: Page) -> int:
        async with page.expect_response("**/api/status?since=*") as asked:
            await look_again(page)
        assert time.time() - float((await asked.value).url.partition("since=")[2]) < 30
        await expect(page.locator("#heard")).to_have_text("heard just now")
        return (await page.locator("path.median").get_attribute("d") or "").count("M")

    with canned() as server:
        async with visit(browser, server.url) as page:
            await expect(page.locator("#word")).to_have_text("Fresh")
            once = await drawn(page)
            again = await drawn(page)
            server.status["history"]["points"] = []
            assert {once - again, again - await drawn(page)} <= {0, 1, 2}  # some may be too old by now
    assert once == pytest.approx(sum(point[3] is not None for point in history(time.time())), abs=2)


async def seeded(url: str) -> None:
    query = (
        "insert into public.users (id, username) select gen_random_uuid(), 'user ' || n from generate_series(1, 20) n"
    )
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as source:
        await source.execute(query)


async def test_with_a_daemon_the_numbers_move_the_button_works_and_its_end_is_seen(
    browser: Browser, source_url: str, target_url: str
) -> None:
    install(source_url, target_url)
    await seeded(source_url)
    async with (
        await psycopg.AsyncConnection.connect(target_url, autocommit=True) as target,
        running(source_url, target_url, {"MIRROR_ADMIN_TOKEN": TOKEN}) as daemon,
        visit(browser, f"http://127.0.0.1:{(await leading(daemon)).port}/") as page,
    ):
        await numbers_move(page, source_url)
        await button_works(page, target)
        daemon.stop()
        await expect(page.locator("#word")).to_have_text("No answer")


async def numbers_move(page: Page, source_url: str) -> None:
    upserted = page.locator("#tables tbody tr").nth(0).locator("[data-name=upserted]")
    await expect(page.locator("#word")).to_have_text("Fresh")
    await expect(upserted).to_have_text("20")
    await seeded(source_url)
    await look_again(page)
    await expect(upserted).to_have_text("40")


async def button_works(page: Page, target: psycopg.AsyncConnection[Any]) -> None:
    await target.execute("delete from public.users where username = 'user 7'")
    await page.click("#open-resync")
    await confirmed(page, "wrong")
    await expect(page.locator("#problem")).to_have_text("The daemon does not know this token.")
    await confirmed(page, TOKEN)
    await expect(page.locator("#followed")).to_contain_text("done")
    await expect(page.locator("#followed")).to_contain_text("users: 40 rows compared; 2 missing, repaired")
    await expect(page.locator("#drift")).to_contain_text("was missing in the copy")
    await expect(page.locator("#proof")).to_contain_text("because an operator asked: every row of all three tables")
