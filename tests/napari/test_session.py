"""Sessions without a window: every step undone and done again exactly, and on disk before the next."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import numpy as np
import pytest
from medseg_napari import commands, handing, journal
from medseg_napari.session import Session, start

from medseg.errors import FormatError, InputError, OutputError
from medseg.grid import Grid
from medseg.instances import Instances
from medseg.ops.deltas import Delta
from medseg.testing.seeds import seeds


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSEG_SESSIONS", str(tmp_path / "sessions"))


def balls(count=12, shape=(24, 60, 60), seed=0):
    rng = np.random.default_rng(seed)
    out = np.zeros(shape, np.int32)
    index = np.indices(shape)
    for id in range(1, count + 1):
        centre = rng.integers(5, np.array(shape) - 5)
        distance = sum(((i - c) * s) ** 2 for i, c, s in zip(index, centre, (2.0, 1.0, 1.0), strict=True))
        out[(distance < rng.uniform(5, 9) ** 2) & (out == 0)] = id
    return out


def begin(labels=None, **more):
    labels = balls() if labels is None else labels
    grid = Grid.from_spacing(labels.shape, (2.0, 1.0, 1.0)[-labels.ndim :])
    ids = np.unique(labels[labels > 0])
    scores = np.linspace(0.4, 0.9, len(ids))
    return Session(Instances.from_labels(labels, grid, scores=scores, classes=("object", "other")), **more)


def random_step(session, rng):
    """One random edit, of any kind; what is refused is no step."""
    ids = sorted(session.rows)
    id = int(rng.choice(ids)) if ids else 0
    n = session.labels.ndim
    kinds = ["add", "split", "line", "merge", "delete", "fill", "largest", "grow", "shrink", "smooth", "between",
             "kind", "accept", "reject", "stroke", "stroke"]  # fmt: skip
    kind = str(rng.choice(kinds))
    if not ids and kind != "add":
        kind = "add"
    try:
        if kind == "add":
            place = tuple(slice(a, a + 5) for a in (int(rng.integers(0, s - 5)) for s in session.labels.shape))
            return commands.add(session, rng.random((5,) * n) < 0.8, place)
        if kind == "split":
            row = session.rows[id]
            low, high = np.array(row.box[:n]), np.array(row.box[n:])
            return commands.split(session, id, [rng.uniform(low, high), rng.uniform(low, high)])
        if kind == "line":
            row = session.rows[id]
            a, b = np.array(row.centroid), np.array(row.centroid)
            a[1], b[1] = row.box[1] - 2, row.box[n + 1] + 2
            return commands.split_by_line(session, id, [a, b], 0)
        if kind == "merge":
            return commands.merge(session, rng.choice(ids, min(3, len(ids)), replace=False).tolist())
        if kind == "stroke":
            centre = [int(rng.integers(2, s - 2)) for s in session.labels.shape]
            place = tuple(slice(c - 2, c + 3) for c in centre)
            before = session.labels[place].copy()
            new = int(rng.choice([0, *ids, max(ids) + 3]))
            session.labels[place] = new
            return session.took("paint", Delta.between(before, session.labels[place], place, session.labels.shape))
        actions = {
            "delete": lambda: commands.delete(session, [id]),
            "fill": lambda: commands.fill_holes(session, id),
            "largest": lambda: commands.keep_largest(session, id),
            "grow": lambda: commands.resize(session, id, 2.0),
            "shrink": lambda: commands.resize(session, id, -1.0),
            "smooth": lambda: commands.smooth(session, id, 1.5),
            "between": lambda: commands.interpolate(session, id),
            "kind": lambda: commands.set_kind(session, [id], str(rng.choice(session.classes))),
            "accept": lambda: commands.accept(session, [id]),
            "reject": lambda: commands.reject(session, [id]),
        }
        return actions[kind]()
    except InputError:
        return None


def state(session):
    return session.labels.copy(), dict(sorted(session.rows.items()))


def same(one, two):
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1] == two[1]


def true_rows(session):
    """What the table has to say, by measuring everything anew."""
    found = session.instances(rejected=True).table
    n = session.labels.ndim
    axes = session.grid.axes
    return {
        int(row["id"]): (
            int(row["voxels"]),
            tuple(int(row[f"box_{a}_{e}"]) for e in ("start", "stop") for a in axes[:n]),
            tuple(round(float(row[f"centroid_{a}"]), 9) for a in axes),
        )
        for row in found.to_dict("records")
    }


def test_two_hundred_random_edits_undone_and_done_again_step_by_step():
    session, rng = begin(), np.random.default_rng(3)
    states = [state(session)]
    while len(states) <= 200:
        if random_step(session, rng) is not None:
            states.append(state(session))
    assert len({edit.name for edit in session.edits}) >= 12
    for expected in states[-2::-1]:
        assert session.undo() is not None
        same(state(session), expected)
    assert session.undo() is None
    for expected in states[1:]:
        assert session.redo() is not None
        same(state(session), expected)
    assert session.redo() is None


def test_the_table_says_what_measuring_anew_would():
    session, rng = begin(seed_labels := balls(seed=4)), np.random.default_rng(5)
    assert seed_labels is not session.labels
    for _ in range(60):
        random_step(session, rng)
        told = {id: (row.voxels, row.box, tuple(round(c, 9) for c in row.centroid)) for id, row in session.rows.items()}
        assert told == true_rows(session)


def test_a_new_edit_ends_the_way_forward():
    session = begin()
    commands.delete(session, [1])
    commands.delete(session, [2])
    session.undo()
    assert session.can_redo
    commands.delete(session, [3])
    assert not session.can_redo and set(session.rows) == {1, 2, *range(3, 13)} - {1, 3}


def test_a_session_opened_again_goes_on_with_undo_and_redo():
    first = begin()
    session = start(first.instances())
    rng = np.random.default_rng(1)
    states = [state(session)]
    while len(states) <= 20:
        if random_step(session, rng) is not None:
            states.append(state(session))
    for _ in range(5):
        session.undo()
    session.journal.close()
    (path,) = journal.left_over()
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    again = Session.resume(path)
    same(state(again), states[15])
    assert again.grid == session.grid and again.classes == session.classes
    for expected in states[16:]:
        again.redo()
        same(state(again), expected)
    for expected in states[-2::-1]:
        again.undo()
        same(state(again), expected)


def test_a_score_computed_meanwhile_is_kept_through_undo_redo_and_restart():
    session = start(begin().instances())
    commands.resize(session, 1, 1.0)
    row = session.rows[1]
    assert row.score is None and row.edited
    session.amend(1, row.revision, score=0.75)
    session.amend(1, row.revision - 1, score=0.1)  # late, of an older shape
    assert session.rows[1].score == 0.75
    session.undo()
    assert session.rows[1].score == 0.4
    session.redo()
    assert session.rows[1].score == 0.75
    session.journal.close()
    assert Session.resume(journal.left_over()[0]).rows[1].score == 0.75


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of Unix")
@pytest.mark.parametrize("steps", [1, 7, 23])
def test_a_killed_session_loses_at_most_the_last_edit(tmp_path, steps):
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        import numpy as np
        from test_session import begin, random_step, start
        session, rng, done = start(begin().instances()), np.random.default_rng(8), 0
        while True:
            if random_step(session, rng) is not None:
                done += 1
                print(done, flush=True)
    """)
    seen = 0
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        while seen < steps:
            seen = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    (path,) = journal.left_over()
    again = Session.resume(path)
    assert len(again.edits) >= seen  # told before it was printed: at most the one in the making is lost
    expected, rng = begin(), np.random.default_rng(8)
    expected = Session(expected.instances())
    while len(expected.edits) < len(again.edits):
        random_step(expected, rng)
    same(state(again), state(expected))


def test_a_full_disk_costs_autosave_and_nothing_else(monkeypatch):
    session, told = start(begin().instances()), []
    session.complained.connect(told.append)
    session.journal._file.execute("PRAGMA max_page_count=1")
    for id in range(1, 9):
        commands.resize(session, id, 3.0)
    assert len(told) == 1 and "Autosave is off" in told[0] and "space" in told[0]
    assert len(session.edits) == 8
    while session.undo():
        pass
    same(state(session), state(begin()))


def test_a_damaged_session_file_is_refused_with_words(tmp_path):
    path = tmp_path / "x.session"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises((FormatError, OSError), match="x.session"):
        Session.resume(path)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("about", "shape", [100000, 100000, 100000]), ("about", "shape", [4, -4, 4]), ("about", "shape", "x"),
        ("about", "shape", [1.5, 2, 2]), ("about", "affine", [[1, 2], 3]), ("about", "affine", None), ("about", "rows", 3),
        ("about", "rows", json.dumps([{"id": {}}])), ("about", "rows", json.dumps([5])), ("about", "position", {}),
        ("about", "classes", [[]]), ("about", "files", [1]), ("about", "unit", 4), ("base", "labels", None), ("base", "labels", 5),
    ],
)  # fmt: skip
def test_a_session_of_other_values_is_refused_and_let_go(tmp_path, table, column, value):
    path = tmp_path / "x.session"
    path.write_bytes(next(seed.data for seed in seeds() if seed.kind == "session"))
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        if table == "about":
            base.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (column, json.dumps(value)))
        else:
            base.execute(f"UPDATE {table} SET {column} = ?", (value,))
    for _ in range(2):  # refused each time for what it is, not as open elsewhere
        with pytest.raises(InputError, match="x.session") as told:
            Session.resume(path)
        assert "another window" not in str(told.value)


def test_the_session_that_is_fuzzed_is_sound(tmp_path):
    path = tmp_path / "x.session"
    path.write_bytes(next(seed.data for seed in seeds() if seed.kind == "session"))
    session = Session.resume(path)
    assert len(session.edits) == 1 and len(session) == 3
    session.journal.close()


def test_rejected_instances_are_not_handed_on_and_edited_ones_are_named():
    session = begin()
    commands.reject(session, [1, 2])
    commands.resize(session, 5, 2.0)
    out = session.instances()
    assert not {1, 2} & set(out.table["id"]) and out.provenance["edited"] == [5]
    assert set(session.instances(rejected=True).table["id"]) == set(range(1, 13))


# --- commands


def drawn(*rows):
    return np.array([[int(c) for c in row] for row in rows], np.int32)


def flat(*rows):
    return begin(drawn(*rows))


def test_split_by_clicks_cuts_at_the_neck():
    session = flat("11100111", "11111111", "11100111")
    commands.split(session, 1, [(1, 1), (1, 6)])
    left, right = session.labels[:, :3], session.labels[:, 5:]
    assert len(np.unique(left)) == len(np.unique(right)) == 1 and left[0, 0] != right[0, 0]
    assert (session.labels > 0).sum() == 20 and len(session) == 2


def test_separation_by_shape_cuts_touching_balls_and_leaves_one_alone():
    index = np.indices((20, 40, 60))
    labels = np.zeros((20, 40, 60), np.int32)
    for id, centre in ((1, (10, 20, 15)), (1, (10, 20, 27)), (2, (10, 20, 50))):
        labels[sum(((i - c) * s) ** 2 for i, c, s in zip(index, centre, (2.0, 1.0, 1.0), strict=True)) < 49] = id
    session = begin(labels)
    commands.separate(session, 1)
    assert len(session) == 3 and session.labels[10, 20, 12] != session.labels[10, 20, 30]
    with pytest.raises(InputError, match="one object"):
        commands.separate(session, 2)


def test_split_keeps_the_number_of_the_largest_part():
    session = flat("1111110011", "1111111111", "1111110011")
    commands.split(session, 1, [(1, 8), (1, 2)])
    assert session.labels[1, 0] == 1 and session.labels[1, 9] == 2
    assert session.rows[1].edited and session.rows[2].kind == "object"


def test_split_by_a_line_in_two_and_three_dimensions():
    session = flat("0000", "1111", "1111", "0000")
    commands.split_by_line(session, 1, [(0, 1.6), (3, 1.6)])
    assert len(session) == 2 and set(session.labels[:, 0]) == {0, 1} or set(session.labels[:, 0]) == {0, 2}
    solid = begin(np.pad(np.ones((5, 8, 8), np.int32), 1))
    commands.split_by_line(solid, 1, [(3, -1, 4), (3, 10, 4)], axis=0)
    assert len(solid) == 2 and all(len(np.unique(solid.labels[z, 1:9, 1:9])) == 2 for z in range(1, 6))


def test_a_line_leaves_other_pieces_with_the_nearer_part():
    session = flat("00000000", "11111100", "11111100", "00000000", "00010001")
    commands.split_by_line(session, 1, [(0, 3), (3, 3)])
    assert len(session) == 2 and (session.labels > 0).sum() == 14


def test_what_was_edited_before_stays_edited_and_a_merged_one_is_undecided():
    first = begin()
    commands.resize(first, 5, 2.0)
    session = Session(first.instances())
    commands.resize(session, 7, 2.0)
    assert session.instances().provenance["edited"] == [5, 7]
    commands.reject(session, [1])
    commands.accept(session, [2])
    commands.merge(session, [1, 2])
    assert [row.status for id, row in session.rows.items() if id in (1, 2)] == [""]


def test_saved_is_of_a_state_and_not_of_a_count():
    session = begin()
    commands.delete(session, [1])
    session.mark_saved()
    session.undo()
    assert not session.saved
    session.redo()
    assert session.saved
    session.undo()
    commands.delete(session, [2])
    assert not session.saved


def test_a_session_that_is_open_is_not_left_over():
    session = start(begin().instances())
    commands.delete(session, [1])
    assert journal.left_over() == []
    with pytest.raises(OutputError, match="another window"):
        Session.resume(session.journal.path)
    session.journal.close()
    assert len(journal.left_over()) == 1


def test_what_comes_before_a_damaged_edit_is_restored():
    session = start(begin().instances())
    for id in (1, 2, 3):
        commands.delete(session, [id])
    session.journal._file.execute("UPDATE edits SET delta = x'00' WHERE number = 3")
    session.journal.close()
    again = Session.resume(journal.left_over()[0])
    assert [edit.name for edit in again.edits] == ["delete", "delete"] and 3 in again.rows


def test_large_ids_cost_no_memory():
    labels = balls(2)
    labels[labels == 2] = 2_000_000_000
    session = begin(labels)
    commands.reject(session, [1])
    assert session.instances().table["id"].tolist() == [2_000_000_000]


def test_a_line_that_does_not_cut_is_told():
    with pytest.raises(InputError, match="right across"):
        commands.split_by_line(flat("1111", "1111"), 1, [(0, 1), (0, 1)])


def test_merge_delete_fill_and_largest():
    session = flat("1100222", "1100202", "0000222", "3000000")
    commands.fill_holes(session, 2)
    assert session.labels[1, 5] == 2
    commands.merge(session, [1, 3, 2])
    assert set(np.unique(session.labels)) == {0, 2} and session.rows[2].voxels == 14
    commands.keep_largest(session, 2)
    assert session.rows[2].voxels == 9
    commands.delete(session, [2])
    assert not session.labels.any() and not session.rows
    assert [session.undo().name for _ in range(4)] == ["delete", "keep largest piece", "merge", "fill holes"]
    np.testing.assert_array_equal(session.labels, drawn("1100222", "1100202", "0000222", "3000000"))


def test_growing_is_in_mm_and_takes_nothing_from_others():
    labels = np.zeros((9, 9, 9), np.int32)
    labels[4, 4, 4], labels[4, 4, 6] = 1, 2
    session = begin(labels)
    commands.resize(session, 1, 2.0)  # voxels of 2 x 1 x 1 mm
    grown = session.labels == 1
    assert (
        grown[3, 4, 4] and not grown[2, 4, 4] and grown[4, 2, 4] and not grown[4, 1, 4] and session.labels[4, 4, 6] == 2
    )
    commands.resize(session, 1, -1.5)
    assert session.rows[1].voxels < grown.sum()
    with pytest.raises(InputError, match="delete it"):
        commands.resize(session, 1, -50.0)


def test_slices_between_painted_ones_are_drawn():
    labels = np.zeros((9, 20, 20), np.int32)
    labels[1, 5:15, 5:15], labels[7, 8:12, 8:12] = 1, 1
    session = begin(labels)
    commands.interpolate(session, 1)
    areas = (session.labels == 1).sum(axis=(1, 2)).tolist()
    assert (
        areas[0] == areas[8] == 0 and all(a >= b for a, b in zip(areas[1:7], areas[2:8], strict=True)) and areas[4] > 30
    )
    with pytest.raises(InputError, match="two slices"):
        commands.interpolate(session, 1)


def test_smoothing_keeps_the_volume():
    labels = balls(1)
    row = begin(labels).rows[1]
    spike = (int(row.centroid[0]), int(row.centroid[1]), slice(row.box[5], row.box[5] + 3))
    labels[spike] = 1
    session = begin(labels)
    before = session.rows[1].voxels
    commands.smooth(session, 1, 2.0)
    assert not session.labels[spike].any() and abs(session.rows[1].voxels - before) <= 0.02 * before


def test_wrong_use_is_told_in_words():
    session = begin()
    for call, words in (
        (lambda: commands.split(session, 99, [(0, 0, 0), (1, 1, 1)]), "no instance 99"),
        (lambda: commands.split(session, 1, [session.rows[1].centroid]), "two or more"),
        (lambda: commands.merge(session, [1]), "two or more"),
        (lambda: commands.delete(session, []), "click on it"),
        (lambda: commands.regrow(session, (1, 1, 1)), "no maps"),
        (lambda: commands.set_kind(session, [1], "cat"), "classes are object, other"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    assert not session.edits


def test_what_a_person_says_changes_what_is_measurable():
    import pandas as pd

    from medseg.export.files import corrected

    table = pd.DataFrame(
        {"id": [1, 2, 3], "long_axis_mm": [20.0, 20.0, 20.0], "short_axis_mm": [12.0, 18.0, 12.0], "measurable": True}
    )
    said = pd.DataFrame({"id": [1, 2, 3], "nodal": [True, True, np.nan], "long_axis_mm": [np.nan, np.nan, 8.0]})
    out = corrected(table, said)
    assert out["measurable"].tolist() == [False, True, False]
    assert out["long_axis_mm"].tolist() == [20.0, 20.0, 8.0]


def test_what_a_person_writes_of_an_instance_is_taken_or_refused_in_words():
    session = begin()
    for column, text, value in (
        ("role", "Target", "target"),
        ("nodal", " Yes", True),
        ("nodal", "no", False),
        ("role", "", ""),
    ):
        assert commands.say(session, 1, column, text) is not None
        assert getattr(session.rows[1], column) == value
    for column, text, words in (("nodal", "nein", "yes or no"), ("role", "chief", "target, non-target, new")):
        with pytest.raises(InputError, match=words):
            commands.say(session, 1, column, text)
    assert (
        commands.say(session, 1, "finding_site", "left of middle") is not None
    )  # with a note: no code is known for it


def test_what_a_file_said_of_an_instance_is_shown_and_can_be_taken_back():
    labels, grid = balls(), Grid.from_spacing(balls().shape, (2.0, 1.0, 1.0))
    liver = ("10200004", "SCT", "Liver")
    segments = [{"id": 1, "site": liver, "role": "target"}, {"id": 2, "nodal": True, "site": ("1", "99X", "of Doe")}]
    session = Session(Instances.from_labels(labels, grid, provenance={"segments": segments}))
    assert (session.rows[1].finding_site, session.rows[1].role, session.rows[1].nodal) == ("Liver", "target", False)
    assert (session.rows[2].finding_site, session.rows[2].nodal) == ("", True)
    session.tell("say", [1], finding_site="", role="")
    said = handing.told(session).set_index("id")
    assert said.loc[1, ["finding_site", "role", "nodal"]].tolist() == ["", "", False] and set(said.index) == {1, 2}


# --- several at once


def test_several_are_grown_in_one_step_and_taken_back_in_one():
    session, alone = begin(balls(seed=4)), begin(balls(seed=4))
    before, ids = state(session), sorted(session.rows)[:6]
    assert not commands.each(session, ids, lambda id: commands.resize(session, id, 1.5))
    assert [edit.name for edit in session.edits] == ["grow by 1.5"]
    for id in ids:
        commands.resize(alone, id, 1.5)
    np.testing.assert_array_equal(session.labels, alone.labels)
    for id, row in session.rows.items():
        other = alone.rows[id]
        assert (row.voxels, row.box, row.centroid) == (other.voxels, other.box, other.centroid)
    after = state(session)
    session.undo()
    same(state(session), before)
    session.redo()
    same(state(session), after)


def test_of_several_the_step_leaves_out_what_cannot_be_done_and_says_so():
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:15] = 1
    labels[8:10, 30:32] = 2  # gone when it shrinks
    session = begin(labels)
    (problem,) = commands.each(session, [1, 2], lambda id: commands.resize(session, id, -2.0))
    assert problem.startswith("2: ") and "delete" in problem
    assert (session.labels == 2).sum() == 4 and (session.labels == 1).sum() < 100 and len(session.edits) == 1
    with pytest.raises(InputError, match="delete"):
        commands.each(session, [2], lambda id: commands.resize(session, id, -2.0))
    assert len(session.edits) == 1


def test_a_fault_in_the_middle_leaves_all_as_it_was():
    session = begin()
    before = state(session)

    def broken(id):
        if id == sorted(session.rows)[2]:
            raise RuntimeError
        return commands.resize(session, id, 2.0)

    with pytest.raises(RuntimeError):
        commands.each(session, sorted(session.rows)[:4], broken)
    same(state(session), before)
    assert not session.edits
    commands.resize(session, 1, 2.0)
    assert len(session.edits) == 1


def test_steps_that_add_instances_are_joined_too(tmp_path):
    labels = np.zeros((20, 60), np.int32)
    for id, x in ((1, 5), (2, 35)):
        labels[5:15, x : x + 8] = labels[5:15, x + 12 : x + 20] = id
        labels[9:11, x + 8 : x + 12] = id
    session = start(begin(labels).instances())
    commands.each(
        session, [1, 2], lambda id: commands.split(session, id, [(10, 8 + 30 * (id - 1)), (10, 20 + 30 * (id - 1))])
    )
    assert len(session.rows) == 4 and len(session.edits) == 1
    session.journal.close()
    again = Session.resume(session.journal.path)
    same(state(again), state(session))
    again.undo()
    np.testing.assert_array_equal(again.labels, labels)
    assert sorted(again.rows) == [1, 2]
    again.journal.close()
