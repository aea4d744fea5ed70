import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.text.markup import plain_text

PIECES = [
    *("<", ">", "</", "<div>", "</div>", "<br>", "<p class=gmail_quote>", "</p>", "<style>", "</style>", "<!--", "-->"),
    *("<blockquote>", "</blockquote>", "<b", " title=\"x\"", "&", "&amp;", "amp;", "&lt;", "&gt;", "&#38;", "&#x26;", "lt;"),
    *("&nbsp;", "&#0;", "&#55296;", "&unknown;", "word", "\n", " ", "#", "1", ";", "<a@b.example>", "é", "注文", "\u202b"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("write to <jane@example.com> or <a@b.example>", "write to <jane@example.com> or <a@b.example>"),
        ("my <order number> is gone", "my <order number> is gone"),
        ("AT&T, R&D & co", "AT&T, R&D & co"),
        ("I can&#39;t log in.&nbsp; Help", "I can't log in.\xa0 Help"),
        ("caf&eacute; &#x6CE8;&#25991;", "café 注文"),
        ("&lt;p&gt;escaped&lt;/p&gt; once too often", "\nescaped\n once too often"),
        ("&amp;amp;amp;lt;b&amp;amp;amp;gt;deep", "deep"),
        ("&#0;&#xD800;&#1114112;&nothing;", "   &nothing;"),
        ("one<br>\ntwo<br/>three", "one\n two\nthree"),
        ("<div>kept\nlines\n> quoted</div>", "\nkept\nlines\n> quoted\n"),
        ("<p>a</p><p>b<b>c</b></p>", "\na\n\nbc\n"),
        ("<table><tr><td>Order</td><td>12</td></tr></table>", "\n\n Order  12 \n\n"),
        ("a<style>p > a {color: red}</style>b<script>if (1 < 2) x()</script>c", "abc"),
        ("a<!-- <p>hidden</p> -->b<p>", "ab\n"),
        ("<!doctype html><html><head><title>t</title></head><body>seen</body></html>", "seen"),
        ("x<o:p>y</o:p><![if !mso]>z<![endif]><p>", "xyz\n"),
        ('new<div class="gmail_quote"><div>On Monday</div><div>old</div></div>more', "newmore"),
        ('new<blockquote type="cite">old<blockquote>older</blockquote></blockquote>more', "newmore"),
        ('new<div id="x_divRplyFwdMsg"><b>From:</b> shop</div><div>old</div>', "new"),
        ('<div style="display: none">preheader</div>seen<p>', "seen\n"),
        ('text<div data-smartmail="gmail_signature">Jane</div><p>', "text\n"),
        ("cut off <style>p {", "cut off "),
        ("cut off <blockquote>old", "cut off "),
        ("cut off <!-- old", "cut off "),
    ],
)
def test_what_a_reader_sees(given: str, shown: str) -> None:
    assert plain_text(given) == shown


def test_what_is_quoted_can_be_kept() -> None:
    mail = '<div>new</div><div class="gmail_quote">On Monday<blockquote>old</blockquote></div>'
    assert plain_text(mail, foreign=True).split() == ["new", "On", "Monday", "old"]
    assert plain_text(mail).split() == ["new"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60))
def test_whatever_comes_in_becomes_text_that_stays_as_it_is(text: str) -> None:
    shown = plain_text(text)
    assert plain_text(shown) == shown
    shown.encode()


@given(st.text(alphabet=st.characters(exclude_characters="<&", exclude_categories=["Cs"]), max_size=200))
def test_text_without_markup_is_not_touched(text: str) -> None:
    assert plain_text(text) == text
