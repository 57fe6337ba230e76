-- accepted: the records of raw but those that repeat one that came before.
-- In what it is used for, nothing is repeated later than EVENT_ID_DAYS after it.
-- Nor is there a line that shares an id with a repetition alone.
-- raw(line: order of arrival; event_id: null where the sender has none; payload: all that the sender wrote;
--     sent_user_id, anonymous_id: the sender's ids, at least one; …)

CREATE TABLE accepted AS
WITH numbered AS (
    SELECT
        *,
        row_number() OVER same_id AS turn,
        first_value(payload) OVER same_id AS first_payload
    FROM raw
    WINDOW same_id AS (PARTITION BY coalesce(event_id, payload) ORDER BY line)
),
named AS (
    SELECT
        * EXCLUDE (turn, first_payload),
        CASE WHEN turn > 1 AND payload = first_payload THEN 'same_event' WHEN turn > 1 THEN 'other_payload' END AS by_id,
        by_id IS NULL AND event_type IN ('purchase', 'refund') AND order_id IS NOT NULL AS is_order_line
    FROM numbered
),
order_lines AS (
    SELECT
        line, event_time, sent_user_id, anonymous_id,
        (event_type, order_id, order_line, product_id, coalesce(quantity, 1), price) AS what
    FROM named WHERE is_order_line
),
-- Under different ids, what is of one moment is a unit each.
same_lines AS (
    SELECT earlier.line AS earlier, later.line AS later
    FROM order_lines AS earlier JOIN order_lines AS later
        ON later.what = earlier.what AND later.line > earlier.line AND later.event_time <> earlier.event_time
    WHERE later.sent_user_id = earlier.sent_user_id OR later.anonymous_id = earlier.anonymous_id
),
repetitions AS (
    SELECT later AS line FROM same_lines WHERE earlier NOT IN (SELECT later FROM same_lines)
)
SELECT
    * EXCLUDE (payload, sent_user_id, anonymous_id, by_id, is_order_line),
    -- All robots of the simulator call themselves one; the real shops send no user agent.
    coalesce(regexp_matches(user_agent, '(?i)bot\b|robot'), false) AS is_robot
FROM named ANTI JOIN repetitions USING (line)
WHERE by_id IS NULL;
