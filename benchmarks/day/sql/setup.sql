-- Part of the whole as a whole number, halves to the even one.
CREATE MACRO half_even(part, whole) AS
    (part * 2 + whole) // (whole * 2)
    - ((part * 2 + whole) % (whole * 2) = 0 AND (part * 2 + whole) // (whole * 2) % 2 = 1)::BIGINT;

CREATE MACRO percent(part, whole) AS
    (coalesce(half_even(part * 10000, nullif(whole, 0)), 0)::DECIMAL(18, 0) * 0.01)::DECIMAL(18, 2);

CREATE MACRO paid(price, quantity) AS (price * coalesce(quantity, 1))::DECIMAL(18, 4);

-- From 1, for the worst fifth of so many, to 5; equals have the same rank.
CREATE MACRO fifth(place, equals, many) AS 1 + 5 * (2 * place + equals - 2) // (2 * many);

-- Lines without an order's id are one order if they are of the same minute.
CREATE MACRO order_of(order_id, event_time) AS
    coalesce('o' || order_id, 'm' || epoch_us(event_time) // 60000000);

CREATE TYPE cart_line AS STRUCT(quantity BIGINT, price DECIMAL(18, 4), currency VARCHAR);
CREATE TYPE cart_content AS MAP(VARCHAR, cart_line);

-- Events of some days without those of robots, and without those within a bot's session.
CREATE MACRO persons(first_day, last_day) AS TABLE
    SELECT * FROM events
    WHERE event_date BETWEEN first_day AND last_day AND NOT is_bot AND NOT EXISTS (
        FROM sessions
        WHERE sessions.is_bot AND session_date BETWEEN first_day - 2 AND last_day
            AND sessions.user_id = events.user_id AND event_time BETWEEN start_time AND end_time
    );
