//! `arrwdb export`: a library's documents as NDJSON, one per line, as the server streams them.
//!
//! The file appears under its name only when the export is complete.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use reqwest::{Method, Response};
use serde::Deserialize;

use super::args::ExportArgs;
use super::client::{Client, deepest};
use super::error::CliError;
use super::library;
use super::progress::{Bars, ByteBar};
use super::terminal::{Terminal, counted};

/// The longest line: a document of 1,000 chunks of 10,000 characters with vectors of 4,096 numbers.
const LINE_BYTES_MAX: usize = 256 << 20;

/// The last line of an export.
#[derive(Debug, Deserialize)]
struct End {
    status: String,
    #[serde(default)]
    total_documents: u64,
    #[serde(default)]
    error: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(args: ExportArgs, terminal: &mut Terminal) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let library = library::find(&client, args.library.as_deref()).await?;
    let path = format!(
        "v1/libraries/{}/documents/stream?include_embeddings={}",
        library.id, !args.no_embeddings
    );
    let request = client.request(Method::GET, &path)?.header("Accept", "application/x-ndjson");
    let response = client.send(request, "export the library").await?;
    // A bar beside lines on the same screen would garble both.
    let bars = if args.out.is_some() { Bars::on(terminal) } else { Bars::Hidden };
    let bar = ByteBar::transfer(bars, "Exporting", None);
    let documents = if let Some(out) = &args.out {
        let mut file = Unfinished::create(out)?;
        let documents = copy(response, &bar, &mut |line| file.write(line)).await?;
        file.finish()?;
        documents
    } else {
        let mut write = |line: &[u8]| Ok(terminal.write(line)?);
        let documents = copy(response, &bar, &mut write).await?;
        terminal.flush()?;
        documents
    };
    bar.finish();
    let seconds = bar.seconds();
    let exported = counted(documents, "document");
    terminal.note(&format!("Exported {exported} of {:?} in {seconds:.1} s.", library.name));
    Ok(())
}

/// Copies every document line to `write`; the number of documents, which the server confirms at
/// the end. An export that breaks off is an error.
async fn copy(
    mut response: Response,
    bar: &ByteBar,
    write: &mut (dyn FnMut(&[u8]) -> Result<(), CliError> + Send),
) -> Result<u64, CliError> {
    let answer = |reason: String| CliError::Answer { doing: "export the library".into(), reason };
    let (mut pending, mut documents) = (Vec::new(), 0_u64);
    // The last line is the server's word on the whole, so each line waits for the next one.
    let mut last: Option<Vec<u8>> = None;
    while let Some(piece) = response.chunk().await.map_err(|error| answer(deepest(&error)))? {
        bar.add_done(piece.len() as u64);
        let mut rest = piece.as_ref();
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(at + 1);
            pending.extend_from_slice(line);
            rest = after;
            if let Some(document) = last.replace(std::mem::take(&mut pending)) {
                write(&document)?;
                documents += 1;
                bar.remark(counted(documents, "document"));
            }
        }
        pending.extend_from_slice(rest);
        if pending.len() > LINE_BYTES_MAX {
            return Err(answer("a line without end".to_owned()));
        }
    }
    let broken = || answer("it broke off; what was written is not the whole library".to_owned());
    let end: End = serde_json::from_slice(&last.unwrap_or_default()).map_err(|_line| broken())?;
    match end.error {
        Some(error) => Err(answer(error)),
        None if end.status == "complete" && end.total_documents == documents => Ok(documents),
        None => Err(broken()),
    }
}

/// A file under a name of its own until it is complete.
struct Unfinished {
    file: BufWriter<File>,
    path: PathBuf,
    out: PathBuf,
}

impl Unfinished {
    fn create(out: &Path) -> Result<Unfinished, CliError> {
        let mut name = out.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let file = File::create(&path).map_err(|error| CliError::file(&path, error))?;
        Ok(Unfinished { file: BufWriter::new(file), path, out: out.to_owned() })
    }

    fn write(&mut self, line: &[u8]) -> Result<(), CliError> {
        self.file.write_all(line).map_err(|error| CliError::file(&self.path, error))
    }

    fn finish(mut self) -> Result<(), CliError> {
        let done = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        done.and_then(|()| std::fs::rename(&self.path, &self.out))
            .map_err(|error| CliError::file(&self.out, error))
    }
}
