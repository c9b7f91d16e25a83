-- When the day of a count ends, which differs by zone and season.
ALTER TABLE day_counts ADD COLUMN day_end INTEGER NOT NULL DEFAULT 0;
UPDATE day_counts SET day_end = day_start + 86400000;
