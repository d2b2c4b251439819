//! When the jobs of a schedule are due.

use arrwdb_engine::state::Timestamp;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;

/// Bytes of a line, at most.
const LINE_BYTES_MAX: usize = 200;
/// Fixed times of a day, at most; what is more often is an interval.
const TIMES_A_DAY_MAX: usize = 48;

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
/// Minute and hour given as numbers, lists or ranges of up to 48 times a day are fixed
/// times: where the clock is set forward, one that it leaves out is due when it goes on; where it is
/// set back, one that it shows twice is due the first time. Other lines (`*`, steps) are due whenever
/// the clock shows what they say.
#[derive(Debug, Clone)]
pub struct Cron {
    /// The line; where its times are fixed, a line for each of them.
    patterns: Vec<croner::Cron>,
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
        let parser = parser.build();
        let told = |error| {
            let field = wrong_field(parser, line);
            CronError::Line(format!("is no line of cron: {}{error}", field.unwrap_or_default()))
        };
        let whole = parser.parse(line).map_err(told)?;
        let apart = fixed_times(line).into_iter().map(|line| parser.parse(&line));
        let apart = apart.collect::<Result<Vec<_>, _>>().map_err(told)?;
        let patterns = if apart.is_empty() { vec![whole] } else { apart };
        let cron = Self { patterns, time_zone };
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
        let next = self.patterns.iter().filter_map(|pattern| {
            pattern.find_next_occurrence(&time, false).ok().map(|next| next.timestamp())
        });
        next.min().map(|next| Timestamp::from_micros(next.as_microsecond()))
    }
}

/// The fields of a line, and what they are of.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day-of-month", "1 to 31, or L"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day-of-week", "0 to 7, or SUN to SAT"),
];

/// The first field of a line that does not read by itself, in words before the reason.
fn wrong_field(parser: CronParser, line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let wrong = FIELDS.iter().zip(&fields).enumerate().find(|(place, (_name, field))| {
        let mut alone = ["*"; FIELDS.len()];
        alone[*place] = **field;
        fields.len() == FIELDS.len() && parser.parse(&alone.join(" ")).is_err()
    });
    let (_place, ((name, of), field)) = wrong?;
    Some(format!("its {name} field `{field}` has to be of {of}: "))
}

/// A line for each time of day that a line names one by one; none where it does not, or names too
/// many. The library takes a line for fixed only if it has one minute and one hour.
fn fixed_times(line: &str) -> Vec<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [minutes, hours, day, month, weekday] = fields[..] else { return Vec::new() };
    let (Some(minutes), Some(hours)) = (values(minutes), values(hours)) else { return Vec::new() };
    if minutes.len() * hours.len() > TIMES_A_DAY_MAX {
        return Vec::new();
    }
    let times = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (minute, hour)));
    times.map(|(minute, hour)| format!("{minute} {hour} {day} {month} {weekday}")).collect()
}

/// The numbers of a field of numbers, lists and ranges.
fn values(field: &str) -> Option<Vec<u8>> {
    let mut values = Vec::new();
    for part in field.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        values.extend(first.parse::<u8>().ok()?..=last.parse::<u8>().ok()?);
    }
    Some(values)
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
    fn a_line_that_does_not_read_says_which_field_is_to_blame() {
        for (line, name, field) in [
            ("61 * * * *", "minute", "61"),
            ("0 24 * * *", "hour", "24"),
            ("0 0 0 * *", "day-of-month", "0"),
            ("0 0 1 FOO *", "month", "FOO"),
            ("0 0 1 1 9", "day-of-week", "9"),
            ("*/0 99 * * *", "minute", "*/0"),
        ] {
            let error = Cron::read(line, "UTC").unwrap_err().to_string();
            let told = format!("its {name} field `{field}` has to be of ");
            assert!(error.contains(&told), "{line}: {error}");
        }
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
        assert_eq!(
            times("0,30 2,14 * * *", "Europe/Berlin", "2026-03-28T14:00:00Z", 4),
            [
                "2026-03-29T01:00:00Z",
                "2026-03-29T12:00:00Z",
                "2026-03-29T12:30:00Z",
                "2026-03-30T00:00:00Z"
            ]
        );
        assert_eq!(
            times("30 1-3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 4),
            [
                "2026-10-24T23:30:00Z",
                "2026-10-25T00:30:00Z",
                "2026-10-25T02:30:00Z",
                "2026-10-26T00:30:00Z"
            ]
        );
        // An interval goes on through the hour that comes twice.
        assert_eq!(
            times("0 */1 * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 3),
            ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"]
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
