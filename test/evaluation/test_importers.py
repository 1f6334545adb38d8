"""Question files of others come in whole, or the row that does not is named; no data set is needed to test that."""

from __future__ import annotations

import json

import pytest

from salmonn_node.evaluation.import_choice import VIDEO_START_NS, import_choice, read_rows
from salmonn_node.evaluation.import_navqa import import_navqa
from salmonn_node.stream.observations import SECOND_NS

# The header of the published table has line breaks inside two of its names.
NAVQA_HEADER = (
    'UUID,Seq ID,Question,"Timestamp \nwith answer","Type \n(binary, position, time, text)",'
    'Text answer,Parsable answer,"Question\nCategory"\n'
)
START_S = 1_673_884_500.0  # 07:55:00 in the annotators' time zone


def navqa(tmp_path, *rows: str):
    table, stretches = tmp_path / "data.csv", tmp_path / "qa_unfilled.json"
    table.write_text(NAVQA_HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    data = [{"id": f"q{i}", "start_time": START_S, "end_time": START_S + 600.0} for i in range(len(rows))]
    stretches.write_text(json.dumps({"version": 0.1, "data": data}))
    return table, stretches


def test_navqa_types_become_typed_questions(tmp_path):
    table, stretches = navqa(
        tmp_path,
        "q0,3,Did you see a hydrant?,7:56:40,binary,,Yes,environmental",
        "q1,3,When did you see it?,7:56:40,time,,[minutes] ago,temporal",
        'q2,3,How long were you inside?,"07:56:00,07:58:00",duration,two minutes,2.0,temporal',
        "q3,3,Where is it?,7:56:40,position,,[position],spatial",
        "q4,3,What colour was it?,7:56:40,text,It was red,,descriptive",
        "q5,4,Another drive's question,7:56:40,binary,,no,",
    )
    result = import_navqa(table, stretches, 3, stream="drive", position_at=lambda stamp: (1.0, 2.0, 0.0))
    by_id = {r.id: r for r in result.records}
    assert set(by_id) == {"q0", "q1", "q2", "q3", "q4"}
    seen_ns = round(START_S + 100) * SECOND_NS
    assert by_id["q0"].expected.binary is True
    assert by_id["q1"].expected.event_start_ns == seen_ns
    assert by_id["q2"].expected.duration_s == 120.0
    assert by_id["q3"].expected.position_m == (1.0, 2.0, 0.0)
    assert by_id["q4"].expected.text == "It was red"
    assert by_id["q0"].evidence[0].start_ns < seen_ns < by_id["q0"].evidence[0].end_ns
    assert by_id["q0"].ask_ns == round((START_S + 600) * SECOND_NS)


def test_navqa_rows_that_cannot_be_scored_are_counted_by_reason(tmp_path):
    table, stretches = navqa(
        tmp_path,
        "q0,3,Where is it?,7:56:40,position,,[position],spatial",
        "q1,3,Is it busy?,7:56:40,binary,,perhaps,",
        "q2,3,How long?,7:56:40,duration,,soon,",
        "q3,3,When?,at noon,time,,,",
        "unknown,3,When?,7:56:40,time,,,",
    )
    result = import_navqa(table, stretches, 3)
    assert not result.records
    assert sum(result.skipped.values()) == 5
    assert result.skipped["no pose of the robot at the evidence"] == 1


def test_a_table_of_another_shape_is_refused(tmp_path):
    table, stretches = navqa(tmp_path)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns: uuid"):
        import_navqa(table, stretches, 0)


def test_the_three_layouts_of_multiple_choice():
    length = {"v1": 60.0, "v2": 120.0}.__getitem__
    mme = [{"videoID": "v1", "question_id": "1-1", "question": "What?", "options": ["A. Cat", "B. Dog"], "answer": "B"}]
    lvb = [
        {
            "key": "v2",
            "qa": [{"uid": "7", "question": "Who?\n(A) Ann\n(B) Bob", "answer": "A", "time_reference": "00:15-01:19"}],
        }
    ]
    plain = [{"video": "v1", "question": "Why?", "options": ["so", "thus"], "answer": "thus"}]
    (a,) = import_choice(mme, "video-mme", length)
    (b,) = import_choice(lvb, "lvbench", length)
    (c,) = import_choice(plain, "plain", length)
    assert (a.id, a.choices, a.expected.choice_index) == ("1-1", ("Cat", "Dog"), 1)
    assert (b.text, b.choices, b.expected.choice_index) == ("Who?", ("Ann", "Bob"), 0)
    assert b.evidence[0].start_ns == VIDEO_START_NS + 15 * SECOND_NS
    assert (c.expected.choice_index, c.ask_ns) == (1, VIDEO_START_NS + 60 * SECOND_NS)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"video": "v", "options": ["a", "b"], "answer": "a"}, "lacks the field 'question'"),
        ({"video": "v", "question": "Q", "options": ["a", "b"], "answer": "C"}, "none of the 2 options"),
        ({"video": "v", "question": "Q", "options": ["a"], "answer": "a"}, "at least two choices"),
    ],
)
def test_a_bad_row_is_named(row, reason):
    with pytest.raises(ValueError, match=rf"(?s)row 1 of layout plain.*{reason}"):
        list(import_choice([row], "plain", lambda video: 1.0))


def test_rows_name_the_line_that_is_no_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{oops\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not JSON"):
        read_rows(path)
