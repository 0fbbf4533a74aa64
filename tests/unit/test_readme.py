"""README's tables are those of figures/, and what it names is there."""

import re

from helpers import paths
from helpers.show import readme

TEXT = readme.README.read_text(encoding="utf-8")


def test_tables_are_made_from_the_figures():
    assert readme.refreshed(TEXT) == TEXT, "run: python -m helpers.show.readme"


def test_a_changed_number_is_noticed():
    digit = re.search(r"<!-- results -->.*?(0\.\d\d\d)", TEXT, re.DOTALL)[1]
    forged = TEXT.replace(digit, "0.999", 1)
    assert forged != TEXT
    assert readme.refreshed(forged) == TEXT


def test_the_leaderboard_in_words_is_made_from_the_table(tmp_path):
    from helpers.evaluation import leaderboard

    leaderboard.write_markdown(readme.FIGURES / "leaderboard.csv", tmp_path / "leaderboard.md")
    assert (tmp_path / "leaderboard.md").read_text() == (readme.FIGURES / "leaderboard.md").read_text()


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", TEXT) + re.findall(r'src="(?!https?://)([^"]+)"', TEXT)
    assert len(links) > 5
    assert [link for link in links if not (paths.ROOT / link).exists()] == []


def test_both_commands_are_named():
    assert "./run_all.sh\n" in TEXT and "./run_all.sh test" in TEXT
