-- Every message that states no event, and why. run-log makes dead letters of them.

SELECT message_id, publish_time, left_out AS reason, text
FROM `${dataset}.decoded`
WHERE left_out IS NOT NULL
