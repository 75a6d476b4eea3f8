"""Mazes, answered by subjects that think right, wrong or not at all."""

import pytest

from chiasm.conversation import Reply
from chiasm.data.world.maze import FILLER, MazeSource
from chiasm.data.world.maze_picture import MazePicture
from chiasm.evaluation.subject import ReplyingSubject, Subject, pictures_read
from chiasm.evaluation.tasks import Exam, NotApplicable
from chiasm.evaluation.tasks.maze import MazeQuestions
from chiasm.evaluation.tasks.questions import Questions
from chiasm.recipe import Evaluation


class Solver(ReplyingSubject):
    """Reads the maze that it is shown, thinks and answers; `thought` and `answer` say what of it is wrong."""

    sees, draws = True, True
    thinks_right = answers_right = True

    def reply(self, samples, *, blind=False):
        return [Reply(self._content(sample, blind), tokens=3) for sample in samples]

    def _content(self, sample, blind):
        maze = pictures_read(sample)[0].maze
        others = sorted(set(maze.marks.values()) - {maze.answer})
        answer = "nothing" if blind else maze.answer if self.answers_right else others[0]
        *thought, _ = sample.messages[-1].content
        if not thought:
            return [f" {answer}"]
        if isinstance(thought[0], str):
            moves = maze.moves if self.thinks_right else maze.moves[1:]
            return [" ".join(moves) + f" {answer}"]
        moved = len(maze.moves) if self.thinks_right else 0
        return [*(each.open() for each in thought[:-1]), MazePicture(maze, 8, moved).open(), f" {answer}"]

    def answer(self, samples, *, blind=False):
        raise AssertionError("mazes are answered with their thoughts")

    def draw(self, samples, *, seed): ...

    def reconstruct(self, images): ...


def scores(thought, **wrong):
    subject = Solver()
    for name, value in wrong.items():
        setattr(subject, name, value)
    exam = Exam(subject, MazeSource(thought=thought, mazes=40), Evaluation(questions=40))
    outcome = MazeQuestions().run(exam)
    assert len(outcome.samples["asked"]) == 40
    return outcome.scores


def test_the_last_word_is_judged_whatever_stands_before_it():
    for thought in ("none", "fillers", "words", "picture"):
        found = scores(thought)
        assert found["score"] == 1
        assert found["blind"] == 0
        assert found["tokens"] == 3
        assert set(found["by_type"]) == {"2 steps", "3 steps", "4 steps"}
        assert scores(thought, answers_right=False)["score"] == 0


def test_an_answer_to_another_maze_is_right_by_chance_alone():
    assert scores("none")["shuffled"] == pytest.approx(1 / 3, abs=0.25)


@pytest.mark.parametrize("thought", ["words", "picture", "pictures"])
def test_the_thought_is_judged_by_itself(thought):
    assert scores(thought)["thought"] == {"score": 1, "n": 40, "answers_behind_right": 1}
    found = scores(thought, thinks_right=False)
    assert found["score"] == 1
    assert found["thought"] == {"score": 0, "n": 40, "answers_behind_wrong": 1}


def test_a_filler_too_few_is_no_right_thought():
    class Hasty(Solver):
        def _content(self, sample, blind):
            return [f" {FILLER} {pictures_read(sample)[0].maze.answer}"]

    exam = Exam(Hasty(), MazeSource(thought="fillers", mazes=20), Evaluation(questions=20))
    assert MazeQuestions().run(exam).scores["thought"]["score"] == 0


def test_without_thoughts_none_are_judged():
    assert "thought" not in scores("none")


def test_mazes_are_no_questions_of_another_task_and_others_no_mazes():
    exam = Exam(Solver(), MazeSource(thought="words", mazes=5), Evaluation(questions=5))
    with pytest.raises(NotApplicable, match="questions about pictures"):
        Questions().run(exam)


def test_a_subject_that_does_not_see_is_not_asked():
    subject = Solver()
    subject.sees = False
    with pytest.raises(NotApplicable, match="no encoder"):
        MazeQuestions().run(Exam(subject, MazeSource(mazes=5), Evaluation()))


def test_a_subject_that_answers_in_words_alone_is_not_asked():
    class Short(Subject):
        sees, draws = True, False

        def answer(self, samples, *, blind=False): ...

        def draw(self, samples, *, seed): ...

        def reconstruct(self, images): ...

    with pytest.raises(NotApplicable, match="in words alone"):
        MazeQuestions().run(Exam(Short(), MazeSource(mazes=5), Evaluation()))
