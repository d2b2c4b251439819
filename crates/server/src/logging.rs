//! Log lines on standard error: text for people, JSON for machines.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::util::TryInitError;

use crate::config::LogConfig;

/// Time as the API writes it.
#[derive(Debug, Clone, Copy)]
struct Rfc3339;

impl FormatTime for Rfc3339 {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:.6}", jiff::Timestamp::now())
    }
}

/// Starts logging for this process; fails if something else logs already.
pub fn start(config: LogConfig) -> Result<(), TryInitError> {
    use std::io::IsTerminal;

    // Libraries talk about their own workings below the level of warnings.
    let filter = EnvFilter::new(format!(
        "warn,arrwdb={0},arrwdb_server={0},arrwdb_engine={0},arrwdb_embed={0},arrwdb_log={0},arrwdb_state={0}",
        config.level
    ));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_timer(Rfc3339);
    if config.json.is_on() {
        subscriber.with_ansi(false).event_format(json::Lines).finish().try_init()
    } else {
        subscriber.with_ansi(std::io::stderr().is_terminal()).finish().try_init()
    }
}

mod json {
    //! One flat object per line: `timestamp`, `level`, `logger`, `message`, then the fields.

    use serde_json::{Map, Value};
    use tracing::field::{Field, Visit};
    use tracing::{Event, Subscriber};
    use tracing_subscriber::fmt::format::Writer;
    use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
    use tracing_subscriber::registry::LookupSpan;

    #[derive(Debug, Clone, Copy)]
    pub(super) struct Lines;

    impl<S, N> FormatEvent<S, N> for Lines
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        fn format_event(
            &self,
            _context: &FmtContext<'_, S, N>,
            mut writer: Writer<'_>,
            event: &Event<'_>,
        ) -> std::fmt::Result {
            let mut fields = Fields(Map::new());
            let metadata = event.metadata();
            fields.put("timestamp", format!("{:.6}", jiff::Timestamp::now()));
            fields.put("level", metadata.level().as_str());
            fields.put("logger", metadata.target());
            event.record(&mut fields);
            writeln!(writer, "{}", Value::Object(fields.0))
        }
    }

    struct Fields(Map<String, Value>);

    impl Fields {
        fn put(&mut self, name: &str, value: impl Into<Value>) {
            self.0.insert(name.to_owned(), value.into());
        }
    }

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.put(field.name(), format!("{value:?}"));
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            self.put(field.name(), value);
        }

        fn record_i64(&mut self, field: &Field, value: i64) {
            self.put(field.name(), value);
        }

        fn record_u64(&mut self, field: &Field, value: u64) {
            self.put(field.name(), value);
        }

        fn record_f64(&mut self, field: &Field, value: f64) {
            self.put(field.name(), value);
        }

        fn record_bool(&mut self, field: &Field, value: bool) {
            self.put(field.name(), value);
        }
    }
}
