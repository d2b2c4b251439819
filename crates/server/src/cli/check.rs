//! `arrwdb check`: reads a closed data directory through, says what is wrong with it, and repairs
//! what needs no guessing.
//!
//! The exit code is 0 for a sound directory, 1 for a damaged one (or a repair that was only shown),
//! 2 where it could not be checked.

use std::cell::OnceCell;
use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use arrwdb_engine::check::{
    Action, CheckError, Closed, Done, Finding, Loss, Progress, Remedy, Report, lost_numbers,
};
use arrwdb_engine::log::disk::OsDisk;
use arrwdb_engine::{OsRandom, Random};
use serde_json::{Value, json};

use super::args::CheckArgs;
use super::error::CliError;
use super::progress::{Bars, ByteBar};
use super::terminal::{Style, Terminal, counted, grouped, harmless};

/// The exit code of a directory that could not be checked.
pub const COULD_NOT_CHECK: u8 = 2;

/// Findings that are printed; `--json` has all.
const PRINTED_MAX: usize = 200;

/// Runs the command; `data_dir` is the directory that is meant when none is given.
pub(crate) fn run(
    args: &CheckArgs,
    data_dir: &Path,
    terminal: &mut Terminal,
) -> Result<ExitCode, CliError> {
    let dir = args.dir.as_deref().unwrap_or(data_dir);
    let closed = Closed::lock(Arc::new(OsDisk), dir)?;
    let report = checked(&closed, terminal)?;
    let mut printer = Printer { dir, terminal, json: args.json };
    if !args.repair {
        printer.report(&report, &[], &[])?;
        return Ok(code(&report));
    }
    let loss = if args.accept_loss { Loss::Accepted } else { Loss::Refused };
    let actions = report.actions(loss);
    if actions.is_empty() {
        printer.report(&report, &[], &[])?;
        printer.line("Nothing here can be repaired without guessing.", report.is_sound())?;
        return Ok(code(&report));
    }
    if !args.yes {
        printer.report(&report, &actions, &[])?;
        if !printer.agreed()? {
            return Ok(ExitCode::FAILURE);
        }
    } else if !args.json {
        printer.report(&report, &actions, &[])?;
    }
    let mut salt = [0; 8];
    OsRandom.fill(&mut salt);
    let done = closed.repair(&report, loss, u64::from_le_bytes(salt))?;
    let after = checked(&closed, printer.terminal)?;
    printer.report(&after, &[], &done)?;
    Ok(code(&after))
}

fn code(report: &Report) -> ExitCode {
    if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn checked(closed: &Closed, terminal: &Terminal) -> Result<Report, CheckError> {
    let bar = Bar { bars: Bars::on(terminal), bar: OnceCell::new() };
    let report = closed.check(&bar);
    if let Some(bar) = bar.bar.get() {
        bar.finish();
    }
    report
}

/// A bar over the bytes of the large files.
#[derive(Debug)]
struct Bar {
    bars: Bars,
    bar: OnceCell<ByteBar>,
}

impl Progress for Bar {
    fn begin(&self, bytes: u64) {
        self.bar.get_or_init(|| ByteBar::work(self.bars, "Checking", bytes));
    }

    fn advance(&self, file: &Path, bytes: u64) {
        if let Some(bar) = self.bar.get() {
            bar.add_done(bytes);
            bar.remark(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
}

/// Prints a report as text or as JSON.
struct Printer<'a> {
    dir: &'a Path,
    terminal: &'a mut Terminal,
    json: bool,
}

impl Printer<'_> {
    fn report(
        &mut self,
        report: &Report,
        planned: &[Action],
        done: &[Done],
    ) -> Result<(), CliError> {
        match self.print(report, planned, done) {
            // Whoever read it has left, which says nothing about the directory.
            Err(error) if error.is_closed_pipe() => Ok(()),
            other => other,
        }
    }

    fn print(
        &mut self,
        report: &Report,
        planned: &[Action],
        done: &[Done],
    ) -> Result<(), CliError> {
        if self.json {
            let text = as_json(self.dir, report, planned, done).to_string();
            self.terminal.line(&text)?;
        } else {
            self.done(done)?;
            self.findings(report)?;
            self.summary(report)?;
            self.planned(planned)?;
        }
        Ok(self.terminal.flush()?)
    }

    /// A path as it lies in the directory.
    fn within(&self, path: &Path) -> String {
        harmless(&path.strip_prefix(self.dir).unwrap_or(path).display().to_string())
    }

    fn findings(&mut self, report: &Report) -> Result<(), CliError> {
        let mut findings: Vec<&Finding> = report.findings.kept.iter().collect();
        findings.sort_by_key(|finding| severity(finding.remedy).0);
        let rows: Vec<[String; 4]> = findings
            .iter()
            .take(PRINTED_MAX)
            .map(|finding| {
                let offset = finding.offset.map_or(String::new(), |offset| offset.to_string());
                let word = severity(finding.remedy).1.to_owned();
                [word, self.within(&finding.path), offset, harmless(&finding.what)]
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        for line in table(["", "FILE", "BYTE", "WHAT"], &rows, self.terminal.columns()) {
            let style = if line.starts_with("damaged") { Some(Style::Bad) } else { None };
            let line = style.map_or(line.clone(), |style| self.terminal.styled(style, &line));
            self.terminal.line(&line)?;
        }
        let hidden = findings.len().saturating_sub(rows.len()) as u64;
        if hidden > 0 {
            self.terminal.line(&format!("... and {}", counted(hidden, "more finding")))?;
        }
        self.terminal.line("")?;
        let mut remedies: Vec<Remedy> = findings.iter().map(|finding| finding.remedy).collect();
        remedies.dedup_by_key(|remedy| remedy.name());
        remedies.retain(|remedy| *remedy != Remedy::Leave);
        let mut said: Vec<&str> = Vec::new();
        for remedy in remedies {
            if !said.contains(&remedy.name()) {
                said.push(remedy.name());
                let count = findings.iter().filter(|f| f.remedy.name() == remedy.name()).count();
                let text = format!("{} ({count}): {}.", subject(remedy), remedy.advice());
                self.terminal.line(&text)?;
            }
        }
        if !said.is_empty() {
            self.terminal.line("")?;
        }
        Ok(())
    }

    fn summary(&mut self, report: &Report) -> Result<(), CliError> {
        let documents = report.libraries.iter().map(|library| library.documents).sum();
        let chunks = report.libraries.iter().map(|library| library.chunks).sum();
        self.terminal.line(&format!(
            "Read {} ({} bytes): {}, {}, {}; {} of the log, up to sequence {}.",
            counted(report.files, "file"),
            grouped(report.bytes),
            // "library" has a plural of its own.
            match report.libraries.len() {
                1 => "1 library".to_owned(),
                count => format!("{} libraries", grouped(count as u64)),
            },
            counted(documents, "document"),
            counted(chunks, "chunk"),
            counted(report.records, "record"),
            report.last,
        ))?;
        if !report.lost.is_empty() {
            let text = format!("Lost from the log: {}.", lost_numbers(&report.lost));
            self.terminal.line(&text)?;
        }
        let found = &report.findings;
        let verdict = if report.is_sound() {
            let text = format!("{} is sound.", self.dir.display());
            self.terminal.styled(Style::Strong, &harmless(&text))
        } else {
            let places = counted(found.damage, "damaged place");
            let text = format!("{} has {places}.", self.dir.display());
            self.terminal.styled(Style::Bad, &harmless(&text))
        };
        Ok(self.terminal.line(&verdict)?)
    }

    fn planned(&mut self, planned: &[Action]) -> Result<(), CliError> {
        if planned.is_empty() {
            return Ok(());
        }
        self.terminal.line("\nA repair would:")?;
        for action in planned.iter().take(PRINTED_MAX) {
            let text = self.planned_one(action);
            self.terminal.line(&format!("  {text}"))?;
        }
        let hidden = planned.len().saturating_sub(PRINTED_MAX) as u64;
        if hidden > 0 {
            self.terminal.line(&format!("  ... and {}", counted(hidden, "more thing")))?;
        }
        Ok(())
    }

    fn planned_one(&self, action: &Action) -> String {
        match action {
            Action::Salvage => "write the damaged files of the log anew with their whole records, \
                                set the originals aside, and give up the lost records"
                .to_owned(),
            Action::CutTail(path) => {
                format!("cut the unfinished end off {} and set it aside", self.within(path))
            }
            Action::Remove(path) => format!("remove {}", self.within(path)),
            Action::RemoveLibrary(_, path) => {
                format!("remove {} (of a deleted library)", self.within(path))
            }
        }
    }

    fn done(&mut self, done: &[Done]) -> Result<(), CliError> {
        for done in done {
            let text = format!("{}: {}", self.within(&done.path), harmless(&done.what));
            self.terminal.line(&text)?;
        }
        if !done.is_empty() {
            self.terminal.line("")?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str, hidden: bool) -> Result<(), CliError> {
        if !self.json && !hidden {
            self.terminal.line(text)?;
        }
        Ok(self.terminal.flush()?)
    }

    /// Asks whether to go on, where somebody can answer.
    fn agreed(&mut self) -> Result<bool, CliError> {
        if self.json || !std::io::stdin().is_terminal() {
            self.terminal.note("Nothing was changed. Run it again with --yes to repair.");
            return Ok(false);
        }
        self.terminal.write(b"\nRepair now? [y/N] ")?;
        self.terminal.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        let agreed = matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        if !agreed {
            self.terminal.note("Nothing was changed.");
        }
        Ok(agreed)
    }
}

/// Its place among the others, and its word.
fn severity(remedy: Remedy) -> (u8, &'static str) {
    match remedy {
        Remedy::Restore | Remedy::AcceptLoss => (0, "damaged"),
        Remedy::CutTail | Remedy::Remake | Remedy::Remove | Remedy::RemoveLibrary(_) => {
            (1, "repairable")
        }
        Remedy::Leave => (2, "note"),
    }
}

/// What the findings of a remedy are about.
fn subject(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Restore => "Damaged files",
        Remedy::AcceptLoss => "Damage to the log",
        Remedy::CutTail => "Torn end of the log",
        Remedy::Remake => "Derived files",
        Remedy::Remove => "Left-overs",
        Remedy::RemoveLibrary(_) => "Deleted libraries",
        Remedy::Leave => "Notes",
    }
}

/// Rows under headings, the last column wrapped to the width.
fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]], columns: usize) -> Vec<String> {
    const GAP: usize = 2;
    const LAST_MIN: usize = 30;
    let mut widths = headings.map(console::measure_text_width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(console::measure_text_width(cell));
        }
    }
    let before: usize = widths.iter().take(N - 1).map(|width| width + GAP).sum();
    let last = columns.saturating_sub(before).max(LAST_MIN);
    let mut lines = Vec::new();
    let headings = headings.map(str::to_owned);
    for row in std::iter::once(&headings).chain(rows) {
        let mut begin = String::new();
        for (cell, width) in row.iter().zip(widths).take(N - 1) {
            begin.push_str(&console::pad_str(cell, width + GAP, console::Alignment::Left, None));
        }
        for part in wrapped(row.last().map_or("", String::as_str), last) {
            lines.push(format!("{begin}{part}").trim_end().to_owned());
            begin = " ".repeat(before);
        }
    }
    lines
}

/// A text in lines of at most `width` columns, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let fits = console::measure_text_width(line) + 1 + console::measure_text_width(word);
        if line.is_empty() {
            line.push_str(word);
        } else if fits <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn as_json(dir: &Path, report: &Report, planned: &[Action], done: &[Done]) -> Value {
    let findings: Vec<Value> = report.findings.kept.iter().map(finding_json).collect();
    let libraries: Vec<Value> = report
        .libraries
        .iter()
        .map(|library| {
            json!({
                "id": library.id.to_string(),
                "name": library.name,
                "seq": library.seq.get(),
                "documents": library.documents,
                "chunks": library.chunks,
                "segments": library.segments,
                "replayed": library.replayed,
                "digest": format!("{:032x}", library.digest),
            })
        })
        .collect();
    let lost: Vec<Value> =
        report.lost.iter().map(|lost| json!({ "first": lost.first, "last": lost.last })).collect();
    let planned: Vec<Value> = planned.iter().map(action_json).collect();
    let done: Vec<Value> =
        done.iter().map(|done| json!({ "path": done.path, "what": done.what })).collect();
    json!({
        "data_dir": dir,
        "sound": report.is_sound(),
        "files": report.files,
        "bytes": report.bytes,
        "records": report.records,
        "last_seq": report.last.get(),
        "libraries": libraries,
        "damage": report.findings.damage,
        "repairable": report.findings.repairable,
        "notes": report.findings.notes,
        "findings": findings,
        "lost": lost,
        "planned": planned,
        "done": done,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": severity(finding.remedy).1,
        "remedy": finding.remedy.name(),
        "path": finding.path,
        "offset": finding.offset,
        "what": finding.what,
        "advice": finding.remedy.advice(),
    })
}

fn action_json(action: &Action) -> Value {
    match action {
        Action::Salvage => json!({ "action": "salvage" }),
        Action::CutTail(path) => json!({ "action": "cut_tail", "path": path }),
        Action::Remove(path) => json!({ "action": "remove", "path": path }),
        Action::RemoveLibrary(id, path) => {
            json!({ "action": "remove_library", "path": path, "library": id.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_its_columns_up_and_wraps_the_last() {
        let rows = [
            ["damaged".to_owned(), "a".to_owned(), "one two three four five six seven".to_owned()],
            ["note".to_owned(), "a/b".to_owned(), "short".to_owned()],
        ];
        let lines = table(["", "FILE", "WHAT"], &rows, 20);
        assert_eq!(
            lines,
            [
                "         FILE  WHAT",
                "damaged  a     one two three four five six",
                "               seven",
                "note     a/b   short",
            ]
        );
    }

    #[test]
    fn every_sort_of_finding_has_a_word_and_advice() {
        use arrwdb_engine::state::LibraryId;
        let all = [
            Remedy::Restore,
            Remedy::AcceptLoss,
            Remedy::CutTail,
            Remedy::Remake,
            Remedy::Remove,
            Remedy::RemoveLibrary(LibraryId::from_bytes([1; 16])),
            Remedy::Leave,
        ];
        for remedy in all {
            let (place, word) = severity(remedy);
            assert_eq!(remedy.is_damage(), word == "damaged", "{word}");
            assert_eq!(remedy.is_repairable(), place == 1, "{word}");
            assert!(!subject(remedy).is_empty() && !remedy.advice().is_empty());
        }
    }
}
