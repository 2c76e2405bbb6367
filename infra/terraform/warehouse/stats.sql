-- How many runs each workflow has, and how many of them are in each status.

SELECT
  workflow_id,
  COUNT(*) AS total,
  COUNTIF(status = 'success') AS successful,
  COUNTIF(status = 'pending') AS pending,
  COUNTIF(status = 'running') AS running,
  COUNTIF(status = 'paused') AS paused,
  COUNTIF(status = 'failed') AS failed,
  COUNTIF(status = 'skipped') AS skipped,
  COUNTIF(status = 'cancelled') AS cancelled
FROM `${dataset}.runs`
GROUP BY workflow_id
