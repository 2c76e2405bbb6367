-- Every run's history: its transitions in the order of their versions, the newest 50.

WITH kept AS (
  SELECT
    *,
    TO_JSON_STRING(STRUCT(answered_by, choice, comment, answer_values)) AS answer,
    answered_by IS NOT NULL OR choice IS NOT NULL OR comment IS NOT NULL OR answer_values IS NOT NULL AS is_answered
  FROM `${dataset}.events`
  WHERE NOT is_progress
  QUALIFY ROW_NUMBER() OVER (PARTITION BY workflow_id, run_id ORDER BY attempt DESC, hlc DESC, event_id DESC) <= 50
),

neighbours AS (
  SELECT
    *,
    ROW_NUMBER() OVER history AS position,
    LAG(attempt) OVER history AS attempt_before,
    LAG(status) OVER history AS status_before,
    LAG(is_ended) OVER history AS was_ended,
    LAG(inferred) OVER history AS was_inferred,
    LAG(answer) OVER history AS answer_before,
    LAG(is_answered) OVER history AS was_answered,
    LEAD(occurred_at) OVER history AS left_at
  FROM kept
  WINDOW history AS (PARTITION BY workflow_id, run_id ORDER BY attempt, hlc, event_id)
),

-- Every later state repeats the answer. It belongs to the first one after the pause, and to one that beats an
-- inferred answer: the default was taken, and somebody has answered.
candidates AS (
  SELECT
    *,
    IF(status_before = 'paused', position, NULL) AS follows_pause,
    IF(was_inferred AND was_answered AND answer <> answer_before, NULL, position) AS beats_nothing
  FROM neighbours
),

answers AS (
  SELECT
    *,
    IFNULL(MAX(follows_pause) OVER so_far >= MAX(beats_nothing) OVER so_far, FALSE) AS is_answer
  FROM candidates
  WINDOW so_far AS (PARTITION BY workflow_id, run_id ORDER BY position)
)

SELECT
  workflow_id,
  run_id,
  position,
  attempt,
  hlc,
  event_id,
  status,
  occurred_at,
  GREATEST(UNIX_MICROS(left_at) - UNIX_MICROS(occurred_at), 0) / 1000 AS lasted_ms,
  inferred,
  -- It breaks the state machine: an ended run has ended, and a run that has started is not pending again.
  IFNULL(
    NOT was_inferred
    AND attempt_before = attempt
    AND status_before <> status
    AND (was_ended OR status = 'pending'),
    FALSE
  ) AS anomaly,
  IF(is_answer, answered_by, NULL) AS answered_by,
  IF(is_answer, choice, NULL) AS choice,
  IF(is_answer, comment, NULL) AS comment,
  IF(is_answer, answer_values, NULL) AS answer_values,
  IF(status = 'paused', pause, NULL) AS pause
FROM answers
