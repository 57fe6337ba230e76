-- From raw to events: which records count, and which repeat one that came before.
-- raw(line: order of arrival; event_id: null where the sender has none; payload: all that the sender wrote; …)

CREATE MACRO half_even(part, whole) AS
    part // whole
    + CASE WHEN 2 * (part % whole) > whole OR (2 * (part % whole) = whole AND (part // whole) % 2 = 1) THEN 1 ELSE 0 END;
CREATE MACRO percent(part, whole) AS
    CASE WHEN whole = 0 THEN 0 ELSE half_even(part * 10000, whole) END::DECIMAL(18, 2) * 0.01::DECIMAL(3, 2);

CREATE TABLE judged AS
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
        by_id IS NULL AND event_type = 'purchase' AND order_id IS NOT NULL AS is_order_line
    FROM numbered
)
SELECT
    * EXCLUDE (by_id, is_order_line),
    CASE
        WHEN by_id IS NOT NULL THEN by_id
        WHEN is_order_line AND row_number() OVER (
            PARTITION BY is_order_line, order_id, product_id, coalesce(quantity, 1), price ORDER BY line
        ) > 1 THEN 'same_order_line'
    END AS reason
FROM named;

CREATE TABLE events AS
SELECT
    * EXCLUDE (reason, payload),
    epoch_us(event_time) AS us,
    event_time::DATE AS event_date,
    (price * coalesce(quantity, 1))::DECIMAL(18, 4) AS amount,
    CASE
        WHEN order_id IS NOT NULL THEN 'order|' || order_id
        ELSE 'minute|' || (epoch_us(event_time) // 60000000)
    END AS order_key,
    -- All robots of the simulator call themselves one; the real shops tell no user agent.
    coalesce(regexp_matches(user_agent, '(?i)bot\b|robot'), false) AS is_robot
FROM judged
WHERE reason IS NULL;
