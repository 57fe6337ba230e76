-- accepted: the records of raw but those that repeat one that came before.
-- In what it is used for, nothing is repeated later than EVENT_ID_DAYS after it.
-- raw(line: order of arrival; event_id: null where the sender has none; payload: all that the sender wrote; …)

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
)
SELECT
    * EXCLUDE (payload, by_id, is_order_line),
    -- All robots of the simulator call themselves one; the real shops send no user agent.
    coalesce(regexp_matches(user_agent, '(?i)bot\b|robot'), false) AS is_robot
FROM named
WHERE by_id IS NULL
WINDOW same_line AS (
    PARTITION BY
        is_order_line, user_id, event_type, order_id, order_line, product_id, coalesce(quantity, 1), price
    ORDER BY line
)
QUALIFY NOT is_order_line
    OR row_number() OVER same_line = 1
    -- Under different ids, what is of one moment is a unit each.
    OR event_time = first_value(event_time) OVER same_line;
