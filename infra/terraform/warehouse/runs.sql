-- Every run in its newest state: that of its event with the greatest version.

SELECT
  * EXCEPT (message_id, publish_time, answered_by, choice, comment, answer_values),
  -- As summaries count it: a skipped or cancelled run did nothing.
  CASE
    WHEN status NOT IN ('success', 'failed') THEN NULL
    WHEN duration_ms > 0 THEN duration_ms
    ELSE GREATEST(UNIX_MICROS(completed_at) - UNIX_MICROS(started_at), 0) / 1000
  END AS took_ms
FROM `${dataset}.events`
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY workflow_id, run_id ORDER BY attempt DESC, hlc DESC, event_id DESC) = 1
