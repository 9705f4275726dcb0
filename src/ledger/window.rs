//! In which window does a moment lie? Windows are aligned to the calendar, in UTC, and made of whole hours.
//!
//! So what was spent is kept by the hour, and a window's sum is that of its hours, whatever its length.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a budget starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// With each hour.
    Hour,
    /// At midnight.
    Day,
    /// On Mondays.
    Week,
    /// On the first of a month.
    Month,
    /// Never.
    Total,
}

/// Seconds of an hour.
const HOUR: u64 = 3_600;
/// The last hour of the year 9999: what comes later is counted there, since dates are no longer written after it.
const LAST: i64 = 70_389_527;

/// Hours since 1970. What lies before it is in its first hour.
pub(super) fn hour_of(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs() / HOUR).map_or(LAST, |hour| hour.min(LAST))
}

/// Milliseconds since 1970, as the file has them. What lies before it is in its first one.
pub(super) fn millis_of(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The first moment of an hour.
pub(super) fn moment_of(hour: i64) -> SystemTime {
    let seconds = u64::try_from(hour).unwrap_or_default() * HOUR;
    UNIX_EPOCH + Duration::from_secs(seconds)
}

impl Per {
    /// As it is written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// The first hour of the window in which an hour lies.
    pub(super) fn start(self, hour: i64) -> i64 {
        let day = hour.div_euclid(24);
        match self {
            Self::Hour => hour,
            Self::Day => day * 24,
            // The first day of 1970 was a Thursday.
            Self::Week => (day - (day + 3).rem_euclid(7)) * 24,
            Self::Month => (day - day_of_month(day)) * 24,
            Self::Total => 0,
        }
    }

    /// The first hour after the window in which an hour lies; none if it never ends.
    pub(super) fn end(self, hour: i64) -> Option<i64> {
        let start = self.start(hour);
        match self {
            Self::Hour => Some(start + 1),
            Self::Day => Some(start + 24),
            Self::Week => Some(start + 7 * 24),
            // After 31 days it is the next month, whatever the month.
            Self::Month => Some(self.start(start + 31 * 24)),
            Self::Total => None,
        }
    }
}

/// How many days of its month lie before a day, which is counted from the first of 1970.
fn day_of_month(day: i64) -> i64 {
    // Never too late by more than a year, since a year has at least 365 days.
    let mut year = 1970 + day / 366;
    while first_of(year + 1) <= day {
        year += 1;
    }
    let mut rest = day - first_of(year);
    for length in months(year) {
        if rest < length {
            break;
        }
        rest -= length;
    }
    rest
}

/// The first day of a year, counted from the first of 1970.
fn first_of(year: i64) -> i64 {
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    365 * (year - 1970) + leaps(year - 1) - leaps(1969)
}

fn months(year: i64) -> [i64; 12] {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = 28 + i64::from(leap);
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours since 1970 of a date that `date -u` knows.
    fn at(seconds: i64) -> i64 {
        seconds / 3_600
    }

    #[test]
    fn windows_follow_the_calendar() {
        // Seconds as `date -u -d … +%s` says them.
        let cases = [
            // 2024-02-29 13:00, a Thursday of a leap year.
            (Per::Month, 1_709_211_600, 1_706_745_600, 1_709_251_200),
            (Per::Week, 1_709_211_600, 1_708_905_600, 1_709_510_400),
            (Per::Day, 1_709_211_600, 1_709_164_800, 1_709_251_200),
            (Per::Hour, 1_709_211_600, 1_709_211_600, 1_709_215_200),
            // 2023-02-28 23:00.
            (Per::Month, 1_677_625_200, 1_675_209_600, 1_677_628_800),
            // 2100-02-28 00:00: no leap year.
            (Per::Month, 4_107_456_000, 4_105_123_200, 4_107_542_400),
            // 2023-12-31 23:00, a Sunday.
            (Per::Month, 1_704_063_600, 1_701_388_800, 1_704_067_200),
            (Per::Week, 1_704_063_600, 1_703_462_400, 1_704_067_200),
            // 2024-01-01 00:00, a Monday.
            (Per::Week, 1_704_067_200, 1_704_067_200, 1_704_672_000),
            // The first hour of 1970, a Thursday: its week began in 1969.
            (Per::Week, 0, -259_200, 345_600),
            (Per::Month, 0, 0, 2_678_400),
            // 9999-12-31 23:00.
            (
                Per::Month,
                253_402_297_200,
                253_399_622_400,
                253_402_300_800,
            ),
        ];
        for (per, now, start, end) in cases {
            assert_eq!(per.start(at(now)), at(start), "{per:?} {now}");
            assert_eq!(per.end(at(now)), Some(at(end)), "{per:?} {now}");
        }
        assert_eq!(Per::Total.start(at(1_709_211_600)), 0);
        assert_eq!(Per::Total.end(at(1_709_211_600)), None);
    }

    #[test]
    fn every_hour_lies_in_its_window_and_windows_follow_each_other() {
        for per in [Per::Hour, Per::Day, Per::Week, Per::Month] {
            let mut start = per.start(0);
            // More than 400 years, of which every hour is looked at near a window's ends.
            while start < 3_600_000 {
                let end = per.end(start.max(0)).unwrap();
                assert!(start < end);
                for hour in [start.max(0), i64::midpoint(start, end).max(0), end - 1] {
                    assert_eq!(per.start(hour), start, "{per:?} {hour}");
                    assert_eq!(per.end(hour), Some(end), "{per:?} {hour}");
                }
                assert_eq!(per.start(end), end, "{per:?}");
                start = end;
            }
        }
    }

    #[test]
    fn moments_far_away_are_moments_all_the_same() {
        let far = UNIX_EPOCH + Duration::from_secs(u64::MAX / 4);
        assert_eq!(hour_of(far), LAST);
        assert_eq!(hour_of(UNIX_EPOCH - Duration::from_secs(9)), 0);
        assert_eq!(hour_of(UNIX_EPOCH + Duration::from_secs(7_199)), 1);
        assert_eq!(moment_of(1), UNIX_EPOCH + Duration::from_secs(3_600));
    }
}
