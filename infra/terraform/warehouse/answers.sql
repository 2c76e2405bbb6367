-- Every pause, how long it lasted, and who ended it how.

SELECT
  workflow_id,
  run_id,
  attempt,
  JSON_VALUE(pause, '$.reason') AS reason,
  JSON_VALUE(pause, '$.assignee') AS assignee,
  SAFE_CAST(JSON_VALUE(pause, '$.deadline') AS TIMESTAMP) AS deadline,
  occurred_at AS asked_at,
  LEAD(occurred_at) OVER history AS answered_at,
  lasted_ms AS waited_ms,
  LEAD(status) OVER history AS became,
  -- Nobody answered, so the default was taken, or the run was given up.
  LEAD(inferred) OVER history AS inferred,
  LEAD(answered_by) OVER history AS answered_by,
  LEAD(choice) OVER history AS choice,
  LEAD(comment) OVER history AS comment,
  LEAD(answer_values) OVER history AS answer_values
FROM `${dataset}.transitions`
WHERE TRUE
QUALIFY status = 'paused'
WINDOW history AS (PARTITION BY workflow_id, run_id ORDER BY position)
