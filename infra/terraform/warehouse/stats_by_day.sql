-- Likewise the runs that started on each day, in UTC.

SELECT
  workflow_id,
  DATE(started_at, 'UTC') AS day,
  COUNT(*) AS total,
  COUNTIF(status = 'success') AS successful,
  COUNTIF(status = 'pending') AS pending,
  COUNTIF(status = 'running') AS running,
  COUNTIF(status = 'paused') AS paused,
  COUNTIF(status = 'failed') AS failed,
  COUNTIF(status = 'skipped') AS skipped,
  COUNTIF(status = 'cancelled') AS cancelled
FROM `${dataset}.runs`
GROUP BY workflow_id, day
