//! Progress bars on standard error, drawn only where that is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::Terminal;

/// How often a bar is redrawn when nothing moves, so that the clock in it does.
const TICK: Duration = Duration::from_millis(250);

/// Whether bars are drawn.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bars {
    /// On standard error.
    Drawn,
    /// Nowhere.
    Hidden,
}

impl Bars {
    /// Bars where `terminal` can show them.
    pub(crate) fn on(terminal: &Terminal) -> Bars {
        if terminal.has_bars() { Bars::Drawn } else { Bars::Hidden }
    }
}

/// One bar: a title, how much is done, a remark, and the time left.
#[derive(Debug)]
pub struct ByteBar {
    bar: ProgressBar,
    began: Instant,
}

/// `{wide_bar}` fills what the other fields leave of the line.
const WORK: &str = "{prefix} {wide_bar} {percent:>3}%  {msg}  {eta} left";
const TRANSFER: &str = "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
const COUNT: &str = "{prefix} {spinner} {msg}  {decimal_bytes}  {decimal_bytes_per_sec}";

impl ByteBar {
    /// A bar over work whose size is `total` bytes.
    pub(crate) fn work(bars: Bars, title: &str, total: u64) -> ByteBar {
        ByteBar::styled(bars, title, Some(total), WORK)
    }

    /// A bar over a transfer of `total` bytes; without a total, only what has passed is shown.
    pub fn transfer(bars: Bars, title: &str, total: Option<u64>) -> ByteBar {
        ByteBar::styled(bars, title, total, if total.is_some() { TRANSFER } else { COUNT })
    }

    fn styled(bars: Bars, title: &str, total: Option<u64>, template: &str) -> ByteBar {
        let target = match bars {
            Bars::Drawn => ProgressDrawTarget::stderr_with_hz(8),
            Bars::Hidden => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(title.to_owned());
        // The templates are constants that a test reads; a fault in one costs only its looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if bars == Bars::Drawn {
            bar.enable_steady_tick(TICK);
        }
        ByteBar { bar, began: Instant::now() }
    }

    /// Says how much there is to do in all.
    pub(crate) fn set_total(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    /// Says how much is done in all.
    pub fn set_done(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Says that `bytes` more are done.
    pub fn add_done(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Shows a remark beside the bar.
    pub fn remark(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Seconds since the bar was made.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for ByteBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [WORK, TRANSFER, COUNT] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
