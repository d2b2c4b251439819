//! When the jobs of a schedule are due.

use arrwdb_engine::state::Timestamp;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;

/// Bytes of a line, at most.
const LINE_BYTES_MAX: usize = 200;

/// Why something is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The line is none of cron.
    #[error("{0}")]
    Line(String),
    /// There is no such time zone.
    #[error("must be a time zone of the IANA database such as UTC or Europe/Berlin")]
    TimeZone,
}

/// Points in time, as a line of cron says, by the clock of a time zone.
///
/// Where that clock is set forward, a fixed time that it leaves out is due when it goes on; where it
/// is set back, a fixed time that it shows twice is due the first time. Lines with `*` or a step in
/// minute or hour are due whenever the clock shows what they say, as in Vixie's cron.
#[derive(Debug, Clone)]
pub struct Cron {
    pattern: croner::Cron,
    time_zone: TimeZone,
}

impl Cron {
    /// Reads five fields (minute, hour, day of month, month, day of week), or a name for them such
    /// as `@daily`, and the name of a time zone of the IANA database.
    ///
    /// # Errors
    /// Says what is wrong, and of which of the two.
    pub fn read(line: &str, time_zone: &str) -> Result<Self, CronError> {
        let time_zone = TimeZone::get(time_zone).map_err(|_unknown| CronError::TimeZone)?;
        let named = line.trim().starts_with('@');
        if line.len() > LINE_BYTES_MAX || !named && line.split_whitespace().count() != 5 {
            return Err(CronError::Line(format!(
                "must be five fields (minute hour day-of-month month day-of-week) of at most \
                 {LINE_BYTES_MAX} bytes, or a name such as @daily"
            )));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let pattern = parser.build().parse(line);
        let pattern =
            pattern.map_err(|error| CronError::Line(format!("is no line of cron: {error}")))?;
        let cron = Self { pattern, time_zone };
        // The thirtieth of February.
        if cron.next_after(Timestamp::from_micros(0)).is_none() {
            return Err(CronError::Line("never comes".to_owned()));
        }
        Ok(cron)
    }

    /// The first time after this one; `None` where there is none that can be told.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let time = jiff::Timestamp::from_microsecond(time.micros()).ok()?;
        let time = time.to_zoned(self.time_zone.clone());
        let next = self.pattern.find_next_occurrence(&time, false).ok()?;
        Some(Timestamp::from_micros(next.timestamp().as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn times(line: &str, zone: &str, after: &str, n: usize) -> Vec<String> {
        let cron = Cron::read(line, zone).unwrap();
        let times =
            std::iter::successors(cron.next_after(at(after)), |time| cron.next_after(*time));
        let text =
            |time: Timestamp| jiff::Timestamp::from_microsecond(time.micros()).unwrap().to_string();
        times.take(n).map(text).collect()
    }

    #[test]
    fn it_is_three_at_night_where_the_clock_hangs() {
        assert_eq!(
            times("0 3 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"],
            "summer time begins on the 29th"
        );
        assert_eq!(
            times("@daily", "Asia/Kolkata", "2026-01-01T00:00:00Z", 2),
            ["2026-01-01T18:30:00Z", "2026-01-02T18:30:00Z"]
        );
        assert_eq!(
            times("*/20 9-10 * * MON-FRI", "UTC", "2026-11-20T10:30:00Z", 3),
            ["2026-11-20T10:40:00Z", "2026-11-23T09:00:00Z", "2026-11-23T09:20:00Z"]
        );
    }

    #[test]
    fn an_hour_that_is_left_out_or_comes_twice_loses_and_doubles_nothing() {
        // From 02:00 the clock is set to 03:00; at 03:00 it is set back to 02:00.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn what_is_no_schedule_is_refused_and_says_why() {
        let refused = |line: &str, zone: &str| Cron::read(line, zone).unwrap_err().to_string();
        assert!(refused("0 3 * * *", "Berlin").contains("Europe/Berlin"));
        for line in ["", "0 3 * *", "0 3 * * * UTC", &"0 ".repeat(200)] {
            assert!(refused(line, "UTC").contains("five fields"), "{line}");
        }
        for line in ["@reboot", "61 3 * * *", "0 24 * * *", "x * * * *", "*/0 * * * *"] {
            assert!(refused(line, "UTC").starts_with("is no line of cron"), "{line}");
        }
        assert_eq!(refused("0 0 30 2 *", "UTC"), "never comes");
    }

    proptest! {
        #[test]
        fn any_line_is_a_schedule_that_goes_on_or_refused(
            fields in prop::collection::vec("[0-9*/,LW#A-C-]{1,6}|\\*(/[0-9]{1,2})?|[0-9]{1,2}", 5),
            after in -1_000_000_000_000_000_i64..10_000_000_000_000_000,
        ) {
            if let Ok(cron) = Cron::read(&fields.join(" "), "America/New_York")
                && let Some(next) = cron.next_after(Timestamp::from_micros(after))
            {
                prop_assert!(next.micros() > after);
                prop_assert_eq!(next.micros() % 60_000_000, 0);
            }
        }

        #[test]
        fn any_text_is_a_schedule_or_refused(line in "\\PC{0,40}", zone in "\\PC{0,20}") {
            drop(Cron::read(&line, "UTC"));
            drop(Cron::read(&line, &zone));
        }
    }
}
