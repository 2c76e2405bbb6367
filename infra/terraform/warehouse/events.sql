-- Every event once, however often it was delivered.

SELECT * EXCEPT (left_out, steps, text)
FROM `${dataset}.decoded`
WHERE left_out IS NULL
-- Only a faulty publisher makes two different events of one version. Then their content decides.
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY workflow_id, run_id, attempt, hlc, event_id
  ORDER BY
    is_progress,
    inferred,
    occurred_at DESC,
    is_ended DESC,
    status DESC,
    IFNULL(answered_by, '') DESC,
    IFNULL(choice, '') DESC,
    IFNULL(comment, '') DESC,
    IFNULL(TO_JSON_STRING(answer_values), '') DESC,
    text DESC
) = 1
