-- What happened to carts on each day; one that is given up twice counts on both.
INSERT INTO expected.cart_days BY NAME
SELECT
    report_date,
    count(*) FILTER (what = 'opened') AS opened,
    count(*) FILTER (what = 'abandoned') AS abandoned,
    count(*) FILTER (what = 'purchased') AS purchased
FROM (
    SELECT 'opened' AS what, opened_at::DATE AS report_date FROM expected.carts
    UNION ALL SELECT 'abandoned', left_on FROM abandonments
    UNION ALL SELECT 'purchased', purchased_at::DATE FROM expected.carts WHERE purchased_at IS NOT NULL
)
GROUP BY report_date;
