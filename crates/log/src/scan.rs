//! Reading a log file forwards, and telling a torn tail from damage (L4).
//!
//! [`Scanner`] follows the chain of frames and checks everything a writer guarantees. Where it
//! stops, [`tail`] decides what the stop means, for the last file of a log:
//!
//! - nothing but zeros follows: the end of the data;
//! - a whole frame follows whose group begins *above* the stop: everything below that group was
//!   durable before the group was written, so the bad bytes were durable once: **damage**;
//! - otherwise the bad bytes belong to the one group that no sync had covered: a **torn tail**.
//!   Later frames of that same group may be whole, since a disk writes unsynced sectors in any
//!   order; they begin at or below the stop, so they do not count against it.
//!
//! A frame that is whole by its checksum but impossible where it stands is damage always: tearing
//! does not forge checksums.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::disk::{File, read_exact_at};
use crate::frame::{self, ALIGNMENT, FRAME_HEADER_BYTES, FRAMES_BEGIN, FileHeader};
use crate::frame::{FrameFault, FrameHeader, HeaderFault, Kind};
use crate::{FRAME_BYTES_MAX, LogError, RECORD_BYTES_MAX, Record, Stream};

/// Bytes read at a time, at least, by one who reads on.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Whether a scan gives payloads out.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Payloads {
    Keep,
    Skip,
}

/// A buffered view of a file up to a limit.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<dyn File>,
    limit: u64,
    read_bytes: usize,
    begin: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn File>, limit: u64, read_bytes: usize) -> Self {
        Self { file, limit, read_bytes, begin: 0, bytes: Vec::new() }
    }

    /// `count` bytes from `offset`; `None` if they run past the limit.
    fn get(&mut self, offset: u64, count: usize) -> io::Result<Option<&[u8]>> {
        let Some(left) = self.limit.checked_sub(offset).filter(|left| *left >= count as u64) else {
            return Ok(None);
        };
        let have = self.begin + self.bytes.len() as u64;
        if offset < self.begin || offset + count as u64 > have {
            let most = self.read_bytes;
            let fill = usize::try_from(left).map_or(most, |left| left.min(most));
            self.bytes.resize(fill.max(count), 0);
            self.begin = offset;
            if let Err(error) = read_exact_at(&*self.file, &mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = usize::try_from(offset - self.begin).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..from + count))
    }
}

/// Reads and checks a file's header. `name_first` is the number in its name.
pub(crate) fn read_header(
    file: &dyn File,
    path: &Path,
    name_first: u64,
) -> Result<FileHeader, LogError> {
    let mut bytes = [0; frame::FILE_HEADER_BYTES];
    let read = read_exact_at(file, &mut bytes, 0);
    if matches!(&read, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof) {
        return Err(LogError::damaged(path, 0, "the file ends within its header"));
    }
    read.map_err(LogError::io("read", path))?;
    match FileHeader::decode(&bytes) {
        Ok(header) if header.first == name_first => Ok(header),
        Ok(_) => Err(LogError::damaged(path, 0, "the file's name and header disagree")),
        Err(HeaderFault::Damaged(reason)) => Err(LogError::damaged(path, 0, reason)),
        Err(HeaderFault::Newer(version)) => Err(LogError::Newer { file: path.to_owned(), version }),
    }
}

/// A record found by a scan.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where its first frame begins.
    pub(crate) offset: u64,
    /// Number, stream and payload (empty when skipped).
    pub(crate) record: Record,
}

/// Where and why a scan stopped.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    pub(crate) offset: u64,
    pub(crate) fault: FrameFault,
}

/// One step of a scan.
#[derive(Debug)]
pub(crate) enum Step {
    Record(Found),
    Stop(Stop),
}

/// A record in parts whose commit has not been seen yet.
#[derive(Debug)]
struct Pending {
    offset: u64,
    seq: u64,
    stream: Stream,
    parts: u32,
    bytes: u64,
    payload: BytesMut,
}

/// Follows the chain of frames of one file.
#[derive(Debug)]
pub(crate) struct Scanner {
    window: Window,
    seed: u32,
    payloads: Payloads,
    /// Where the next frame begins.
    offset: u64,
    /// Where the last complete record or mark ends.
    complete: u64,
    /// The highest number so far.
    last: u64,
    /// Where the present group begins; `None` before the first frame of a scan from the middle.
    group: Option<u64>,
    /// Whether the last frame was a mark.
    marked: bool,
    pending: Option<Pending>,
}

impl Scanner {
    /// From the file's first frame.
    pub(crate) fn new(window: Window, header: &FileHeader, payloads: Payloads) -> Self {
        let mut scanner = Self::resume(window, header.seed(), FRAMES_BEGIN, payloads);
        // Numbers between the previous file's last and this one's first were refused.
        scanner.last = header.first - 1;
        scanner.group = Some(FRAMES_BEGIN);
        scanner
    }

    /// From a record's first frame in the middle of the file.
    pub(crate) fn resume(window: Window, seed: u32, offset: u64, payloads: Payloads) -> Self {
        Self {
            window,
            seed,
            payloads,
            offset,
            complete: offset,
            last: 0,
            group: None,
            marked: false,
            pending: None,
        }
    }

    /// Jumps to another record of the file.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.offset = offset;
        self.complete = offset;
        self.last = 0;
        self.group = None;
        self.pending = None;
    }

    /// Says which number was read before the place where a scan was resumed.
    pub(crate) fn set_last(&mut self, last: u64) {
        self.last = last;
    }

    pub(crate) fn complete(&self) -> u64 {
        self.complete
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Where the last group begins; the whole of it may not have been synced.
    pub(crate) fn group(&self) -> u64 {
        self.group.unwrap_or(self.complete)
    }

    pub(crate) fn marked(&self) -> bool {
        self.marked
    }

    /// The next record, or where the chain ends. After a stop it stops there again.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        loop {
            let offset = self.offset;
            match self.frame()? {
                Ok(Some(found)) => return Ok(Step::Record(found)),
                Ok(None) => {}
                Err(fault) => return Ok(Step::Stop(Stop { offset, fault })),
            }
        }
    }

    /// After a stop: goes on at the next place where a record or a mark begins with a higher number;
    /// `None` if there is none.
    pub(crate) fn resync(&mut self, stop: Stop) -> io::Result<Option<u64>> {
        let step = ALIGNMENT as u64;
        // With a record left open, the frame that should not stand there may be a good beginning.
        let first = if self.pending.is_some() { stop.offset } else { stop.offset + step };
        let mut offset = first;
        while offset < self.window.limit {
            let begins = self.frame_at(offset)?.is_some_and(|header| match header.kind {
                Kind::Whole => header.seq > self.last,
                Kind::Part => header.seq > self.last && header.part == 0,
                Kind::Mark => header.seq >= self.last && header.group == offset,
                Kind::Commit => false,
            });
            if begins {
                let last = self.last;
                self.seek(offset);
                self.last = last;
                return Ok(Some(offset));
            }
            offset += step;
        }
        Ok(None)
    }

    /// The header of a whole frame at `offset`, if there is one, wherever it belongs.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        let Some(header) = self.window.get(offset, FRAME_HEADER_BYTES)? else { return Ok(None) };
        if header.first_chunk().is_none_or(|header| !frame::plausible(header, self.seed)) {
            return Ok(None);
        }
        let Ok(size) = frame_size(&mut self.window, offset)? else { return Ok(None) };
        let Some(bytes) = self.window.get(offset, size)? else { return Ok(None) };
        Ok(frame::decode(bytes, self.seed).ok().map(|(header, _)| header))
    }

    /// Takes one frame; a record if it completes one.
    fn frame(&mut self) -> io::Result<Result<Option<Found>, FrameFault>> {
        let size = match frame_size(&mut self.window, self.offset)? {
            Ok(size) => size,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some(bytes) = self.window.get(self.offset, size)? else {
            return Ok(Err(FrameFault::Short));
        };
        let (header, payload) = match frame::decode(bytes, self.seed) {
            Ok(decoded) => decoded,
            Err(fault) => return Ok(Err(fault)),
        };
        let payload = match (self.payloads, header.kind) {
            (Payloads::Skip, Kind::Whole | Kind::Part) => (Bytes::new(), payload.len()),
            (Payloads::Keep, _) | (Payloads::Skip, Kind::Commit | Kind::Mark) => {
                (Bytes::copy_from_slice(payload), payload.len())
            }
        };
        if let Err(reason) = self.check(&header) {
            return Ok(Err(FrameFault::Impossible(reason)));
        }
        Ok(self.accept(&header, payload, size).map_err(FrameFault::Impossible))
    }

    /// What holds for every frame where it stands.
    fn check(&self, header: &FrameHeader) -> Result<(), &'static str> {
        let begins_group = header.group == self.offset;
        match (&self.pending, header.kind) {
            (None, Kind::Commit) => return Err("a commit frame ends no record"),
            (Some(_), Kind::Whole | Kind::Mark) => return Err("a record lacks its commit frame"),
            (Some(open), _) if open.seq != header.seq || open.stream != header.stream => {
                return Err("a record lacks its commit frame");
            }
            (Some(_), _) if begins_group => return Err("a record is split over groups"),
            (None, Kind::Whole | Kind::Part) if header.seq <= self.last => {
                return Err("sequence numbers do not increase");
            }
            (None, Kind::Mark) if header.seq < self.last || !begins_group => {
                return Err("a mark is out of place");
            }
            (None | Some(_), _) => {}
        }
        let in_group = self.group.is_none_or(|group| group == header.group);
        if header.group > self.offset || !(begins_group || in_group) {
            return Err("a frame belongs to another group");
        }
        Ok(())
    }

    fn accept(
        &mut self,
        header: &FrameHeader,
        (payload, length): (Bytes, usize),
        size: usize,
    ) -> Result<Option<Found>, &'static str> {
        let offset = self.offset;
        let found = match header.kind {
            Kind::Mark => None,
            Kind::Whole => Some(Found {
                offset,
                record: Record { seq: header.seq, stream: header.stream, payload },
            }),
            Kind::Part => {
                self.accept_part(header, &payload, length)?;
                None
            }
            Kind::Commit => Some(self.commit(header, &payload)?),
        };
        self.group = Some(header.group);
        self.marked = header.kind == Kind::Mark;
        self.offset += size as u64;
        if self.pending.is_none() {
            self.complete = self.offset;
            self.last = header.seq;
        }
        Ok(found)
    }

    fn accept_part(
        &mut self,
        header: &FrameHeader,
        payload: &Bytes,
        length: usize,
    ) -> Result<(), &'static str> {
        let open = self.pending.get_or_insert_with(|| Pending {
            offset: self.offset,
            seq: header.seq,
            stream: header.stream,
            parts: 0,
            bytes: 0,
            payload: BytesMut::new(),
        });
        let full = open.bytes == u64::from(open.parts) * FRAME_BYTES_MAX as u64;
        let bytes = open.bytes + length as u64;
        if header.part != open.parts || length == 0 || !full || bytes > RECORD_BYTES_MAX as u64 {
            return Err("the parts of a record are out of order");
        }
        open.parts += 1;
        open.bytes = bytes;
        open.payload.extend_from_slice(payload);
        Ok(())
    }

    fn commit(&mut self, header: &FrameHeader, payload: &Bytes) -> Result<Found, &'static str> {
        let open = self.pending.take().ok_or("a commit frame ends no record")?;
        let total = <[u8; 8]>::try_from(&payload[..]).map(u64::from_le_bytes);
        if total.ok() != Some(open.bytes) || header.part != open.parts {
            self.pending = Some(open);
            return Err("a commit frame does not match its parts");
        }
        let payload = open.payload.freeze();
        Ok(Found {
            offset: open.offset,
            record: Record { seq: open.seq, stream: open.stream, payload },
        })
    }
}

/// Bytes of the frame at `offset`, padding included, from its length field.
fn frame_size(window: &mut Window, offset: u64) -> io::Result<Result<usize, FrameFault>> {
    let Some(header) = window.get(offset, FRAME_HEADER_BYTES)? else {
        return Ok(Err(FrameFault::Short));
    };
    let Some(header) = header.first_chunk() else { return Ok(Err(FrameFault::Short)) };
    Ok(frame::length(header).map(|length| length.next_multiple_of(ALIGNMENT)))
}

/// What lies behind the place where a scan stopped.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// Zeros, or nothing; and every record before it is complete.
    Clean,
    /// An unfinished group; its last byte that is not zero ends at `end`.
    Torn { end: u64 },
    /// Bytes that were durable are bad.
    Damaged { offset: u64 },
}

/// Decides what the stop of `scanner` means in the last file of a log. Reads to the end of the
/// file.
pub(crate) fn tail(scanner: &mut Scanner, stop: Stop) -> io::Result<Tail> {
    if let FrameFault::Newer(_) | FrameFault::Impossible(_) = stop.fault {
        return Ok(Tail::Damaged { offset: stop.offset });
    }
    let begin = scanner.complete;
    let end = written_end(&mut scanner.window, begin)?;
    if end <= begin {
        return Ok(Tail::Clean);
    }
    let step = ALIGNMENT as u64;
    let mut offset = stop.offset + step;
    // A frame may end in zeros, so `end` bounds where it begins, not where it ends.
    while offset < end {
        if claims_durable(scanner, offset, stop.offset)? {
            return Ok(Tail::Damaged { offset: stop.offset });
        }
        offset += step;
    }
    Ok(Tail::Torn { end })
}

/// Whether a whole frame at `offset` says that `below` was durable when it was written.
fn claims_durable(scanner: &mut Scanner, offset: u64, below: u64) -> io::Result<bool> {
    let found = scanner.frame_at(offset)?;
    Ok(found.is_some_and(|header| header.group > below && header.group <= offset))
}

/// The end of the last byte at or after `begin` that is not zero; `begin` if there is none.
fn written_end(window: &mut Window, begin: u64) -> io::Result<u64> {
    let mut end = begin;
    let mut at = begin;
    while at < window.limit {
        let count = usize::try_from(window.limit - at).map_or(READ_BYTES, |n| n.min(READ_BYTES));
        let Some(bytes) = window.get(at, count)? else { break };
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            end = at + last as u64 + 1;
        }
        at += count as u64;
    }
    Ok(end)
}
