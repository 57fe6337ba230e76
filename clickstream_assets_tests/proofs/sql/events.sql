-- Macros that the other scripts share, and the events with what they need of each.
-- accepted(line: order of arrival; event_id: null where the sender has none; is_robot: by the user agent; …)

CREATE MACRO half_even(part, whole) AS
    part // whole
    + CASE WHEN 2 * (part % whole) > whole OR (2 * (part % whole) = whole AND (part // whole) % 2 = 1) THEN 1 ELSE 0 END;
CREATE MACRO percent(part, whole) AS
    CASE WHEN whole = 0 THEN 0 ELSE half_even(part * 10000, whole) END::DECIMAL(18, 2) * 0.01::DECIMAL(3, 2);

CREATE VIEW events AS
SELECT
    *,
    event_time::DATE AS event_date,
    epoch_us(event_time) AS us,
    -- Its day's midnight, by the clocks of the time zone that is set.
    epoch_us(date_trunc('day', event_time)) AS midnight,
    (price * coalesce(quantity, 1))::DECIMAL(18, 4) AS amount,
    CASE
        WHEN order_id IS NOT NULL THEN 'order|' || order_id
        ELSE 'minute|' || (epoch_us(event_time) // 60000000)
    END AS order_key
FROM accepted;
