-- Sessions: no gap of more than 30 minutes; what lasts longer than a day is cut at each midnight that is a day or more
-- after its start. Bots: by user agent, by more than 60 views in less than a minute, by a session of a day or more.
-- What happened at one moment is in the order of the event ids where the sender gives them; else it is in no order.

CREATE TABLE visited AS
WITH gaps AS (
    SELECT
        *,
        CASE WHEN us - lag(us) OVER (PARTITION BY user_id ORDER BY us) <= 30 * 60000000 THEN 0 ELSE 1 END AS starts
    FROM events
),
chains AS (
    SELECT *, sum(starts) OVER (PARTITION BY user_id ORDER BY us) AS chain FROM gaps
),
pieces AS (
    SELECT
        *,
        CASE
            WHEN event_date::TIMESTAMP - (min(event_time) OVER (PARTITION BY user_id, chain))::TIMESTAMP
                >= INTERVAL 24 HOUR
            THEN event_date
        END AS piece
    FROM chains
)
SELECT
    *,
    rank() OVER (PARTITION BY user_id, chain, piece, product_id IS NULL ORDER BY us, event_id) AS from_entry,
    rank() OVER (PARTITION BY user_id, chain, piece, product_id IS NULL ORDER BY us DESC, event_id DESC) AS from_exit,
    count(*) FILTER (event_type = 'view') OVER (
        PARTITION BY user_id, chain, piece ORDER BY us RANGE BETWEEN 59999999 PRECEDING AND CURRENT ROW
    ) AS views_of_a_minute
FROM pieces;

CREATE TABLE visits AS
SELECT
    user_id,
    chain,
    piece,
    left(sha256(user_id || '|' || min(us)), 32) AS session_id,
    min(event_date) AS session_date,
    min(event_time) AS start_time,
    max(event_time) AS end_time,
    (max(us) - min(us)) // 1000000 AS duration_seconds,
    count(*) AS total_events,
    count(*) FILTER (event_type = 'view') AS views,
    count(*) FILTER (event_type = 'click') AS clicks,
    count(*) FILTER (event_type = 'add_to_cart') AS add_to_carts,
    count(*) FILTER (event_type = 'remove_from_cart') AS remove_from_carts,
    count(*) FILTER (event_type = 'purchase') AS purchases,
    count(*) FILTER (event_type = 'search') AS searches,
    count(DISTINCT product_id) AS distinct_products,
    list(DISTINCT product_id) FILTER (from_entry = 1 AND product_id IS NOT NULL) AS entry_products,
    list(DISTINCT product_id) FILTER (from_exit = 1 AND product_id IS NOT NULL) AS exit_products,
    coalesce(sum(amount) FILTER (event_type = 'purchase'), 0) AS revenue,
    CASE
        WHEN bool_or(is_robot) THEN 'user_agent'
        WHEN max(views_of_a_minute) > 60 THEN 'view_rate'
        WHEN piece IS NOT NULL OR max(us) - min(us) >= 86400000000 THEN 'endless_session'
    END AS bot_reason,
    bot_reason IS NOT NULL AS is_bot,
    CASE
        WHEN purchases > 0 THEN 'purchase'
        WHEN add_to_carts > 0 THEN 'add_to_cart'
        WHEN views + clicks > 0 THEN 'view'
        ELSE 'none'
    END AS furthest_step,
    (list(campaign ORDER BY us, event_id) FILTER (campaign IS NOT NULL))[1] AS campaign,
    list_sort(list(DISTINCT client_session_id) FILTER (client_session_id IS NOT NULL)) AS client_session_ids
FROM visited
GROUP BY user_id, chain, piece;

INSERT INTO expected.sessions BY NAME
SELECT * EXCLUDE (chain, piece, entry_products, exit_products) FROM visits;

CREATE TABLE persons AS
SELECT visited.*
FROM visited
JOIN visits ON visited.user_id = visits.user_id
    AND visited.chain = visits.chain
    AND visited.piece IS NOT DISTINCT FROM visits.piece
WHERE NOT visits.is_bot;
