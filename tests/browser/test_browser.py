"""The fixtures of the tests in a browser see what they are meant to see."""

PAGE = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'">
<title>A page</title>
<p id="text">before</p>
<script>document.getElementById("text").textContent = "after";</script>
"""


def page_file(folder, extra=""):
    path = folder / "page.html"
    path.write_text(PAGE + extra)
    return path


def test_a_page_of_a_file_runs_its_script_and_asks_for_nothing_else(open_page, tmp_path):
    path = page_file(tmp_path)
    opened = open_page(path)
    assert opened.page.text_content("#text") == "after"
    assert opened.requests == [path.as_uri()]


def test_an_exception_of_a_script_is_noted(open_page, tmp_path):
    opened = open_page(page_file(tmp_path, "<script>undefined.field</script>"))
    assert any("undefined" in error for error in opened.errors)
    opened.errors.clear()


def test_what_the_content_security_policy_refuses_is_noted(open_page, tmp_path):
    opened = open_page(page_file(tmp_path, '<img src="data:image/gif;base64,AAAA">'))
    opened.page.wait_for_timeout(100)
    assert any("Content Security Policy" in error for error in opened.errors)
    opened.errors.clear()


def test_a_page_may_be_opened_as_by_a_user_of_dark_colours(open_page, tmp_path):
    page = open_page(page_file(tmp_path), color_scheme="dark").page
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
