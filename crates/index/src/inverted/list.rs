//! The rows that have a term, each with a number from 1, and where it has it if that is kept.
//!
//! Rows come in blocks of 128, each a run of bit-packed differences and numbers, after the idea
//! of Lucene's block postings; what is left over at the end is in bytes. In front is an entry for
//! each block: its last row, where its parts begin, and what bounds the score of its rows, so that
//! blocks are passed over unread.
//!
//! ```text
//! list:   entry of each full block | blocks | rest
//! entry:  u32 last row | u32 offset of the block | u32 offset of its positions | 3 * u16 bounds
//! block:  u8 bits of a difference | u8 bits of a number | 128 differences, less 1
//!         | 128 numbers, less 1
//! rest:   of each row: varint of (difference * 2 + whether the number is 1) | else varint of it
//! positions: of each row: varints of differences
//! ```
//!
//! Differences are to the row before (to -1 for the first). What a number says and what bounds it is
//! for who writes the list; a row that has positions has as many as its number says. Nothing here
//! panics on bytes that are not such a list: what lies past the end is read as zeros.

/// Rows of a block.
pub(crate) const BLOCK: usize = 128;
/// Bytes of a block's entry.
const ENTRY_BYTES: usize = 18;
/// Numbers of more bits are written in 32, which are read as they lie.
const PACKED_BITS_MAX: u32 = 24;

/// Three numbers by which what a block's rows score is bounded.
pub(crate) type Bounds = [u16; 3];

/// The rows that have a term.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    rows: u32,
    data: &'a [u8],
    positions: &'a [u8],
}

/// A list that is made for one query.
#[derive(Debug, Clone, Default)]
pub struct OwnedList {
    rows: u32,
    data: Vec<u8>,
    positions: Vec<u8>,
}

impl OwnedList {
    /// The list.
    pub fn list(&self) -> List<'_> {
        List::new(self.rows, &self.data, &self.positions)
    }

    /// A list of (row, position), ascending; `bounds` of a full block's (row, count).
    pub(crate) fn of_positions(
        at: &[(u32, u32)],
        bounds: impl Fn(&[(u32, u32); BLOCK]) -> Bounds,
    ) -> Self {
        let (mut rows, mut starts, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for same in at.chunk_by(|a, b| a.0 == b.0) {
            rows.push((same[0].0, u32::try_from(same.len()).unwrap_or(u32::MAX)));
            starts.push(u32::try_from(positions.len()).unwrap_or(u32::MAX));
            let mut before = 0;
            for (_row, position) in same {
                varint(u64::from(position - before), &mut positions);
                before = *position;
            }
        }
        let mut data = Vec::new();
        encode(&rows, Some(&starts), bounds, &mut data);
        Self { rows: u32::try_from(rows.len()).unwrap_or(u32::MAX), data, positions }
    }

    /// A list of (row, number) without positions, rows ascending; `bounds` of those of a full block.
    pub(crate) fn of(rows: &[(u32, u32)], bounds: impl Fn(&[(u32, u32); BLOCK]) -> Bounds) -> Self {
        let mut data = Vec::new();
        encode(rows, None, bounds, &mut data);
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        Self { rows: count, data, positions: Vec::new() }
    }
}

/// A block's entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) last_row: u32,
    pub(super) bounds: Bounds,
}

impl<'a> List<'a> {
    /// A list of so many rows.
    pub(crate) fn new(rows: u32, data: &'a [u8], positions: &'a [u8]) -> Self {
        Self { rows, data, positions }
    }

    /// How many rows have the term.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How many full blocks there are.
    pub(super) fn blocks(&self) -> usize {
        self.rows as usize / BLOCK
    }

    /// The entry of a full block.
    #[inline]
    pub(super) fn entry(&self, block: usize) -> Entry {
        let at = block * ENTRY_BYTES;
        let bounds = [12, 14, 16].map(|place| short(self.data, at + place));
        Entry { last_row: word(self.data, at), bounds }
    }

    /// Gives every row with every position that the term has there. O(positions).
    pub(crate) fn for_each_position(&self, mut each: impl FnMut(u32, u32)) {
        let mut cursor = Cursor::new(*self);
        let mut positions = Vec::new();
        while cursor.load() {
            cursor.positions(&mut positions);
            for position in &positions {
                each(cursor.row(), *position);
            }
            cursor.at += 1;
        }
    }

    /// Gives every row with its number. O(rows).
    pub fn for_each(&self, mut each: impl FnMut(u32, u32)) {
        let mut cursor = Cursor::new(*self);
        while cursor.load() {
            for place in 0..cursor.len {
                each(cursor.rows[place], cursor.numbers[place]);
            }
            cursor.at = cursor.len;
        }
    }
}

/// A place in a list, which only moves on. It holds the block that it is in.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) list: List<'a>,
    /// The block to be read next.
    next: usize,
    pub(crate) rows: [u32; BLOCK],
    pub(crate) numbers: [u32; BLOCK],
    /// Rows of the block that was read.
    pub(crate) len: usize,
    /// The row in it.
    pub(crate) at: usize,
    /// The last row of the blocks before the next.
    before: Option<u32>,
    /// Where the positions of the row `positions_of` of this block begin.
    positions_at: usize,
    positions_of: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(list: List<'a>) -> Self {
        Self {
            list,
            next: 0,
            rows: [0; BLOCK],
            numbers: [0; BLOCK],
            len: 0,
            at: 0,
            before: None,
            positions_at: 0,
            positions_of: 0,
        }
    }

    /// Makes sure that there is a row here, by reading the next block if need be; false at the end.
    #[inline]
    pub(crate) fn load(&mut self) -> bool {
        if self.at < self.len {
            return true;
        }
        let blocks = self.list.blocks();
        let rest = self.list.rows as usize % BLOCK;
        if self.next > blocks || (self.next == blocks && rest == 0) {
            return false;
        }
        if self.next < blocks {
            self.read_block();
        } else {
            self.read_rest(rest);
        }
        self.next += 1;
        self.at = 0;
        self.before = Some(self.rows[self.len - 1]);
        true
    }

    /// The row here; a block has been read.
    #[inline]
    pub(crate) fn row(&self) -> u32 {
        self.rows[self.at]
    }

    /// How often the row here has the term.
    #[inline]
    pub(crate) fn frequency(&self) -> u32 {
        self.numbers[self.at]
    }

    /// Moves to the first row from `row` on, at which it stands or which comes after; false if there
    /// is none.
    pub(crate) fn seek(&mut self, row: u32) -> bool {
        if self.at >= self.len || self.rows[self.len - 1] < row {
            let blocks = self.list.blocks();
            let mut block = self.next;
            while block < blocks && self.list.entry(block).last_row < row {
                block += 1;
            }
            if block > self.next {
                self.before = Some(self.list.entry(block - 1).last_row);
                self.next = block;
            }
            self.at = self.len;
            if !self.load() {
                return false;
            }
        }
        self.at += self.rows[self.at..self.len].partition_point(|it| *it < row);
        self.at < self.len
    }

    /// The positions of the row here, ascending.
    pub(crate) fn positions(&mut self, out: &mut Vec<u32>) {
        let mut bytes = Bytes { bytes: self.list.positions, at: self.positions_at };
        let passed = &self.numbers[self.positions_of..self.at];
        for _ in 0..passed.iter().map(|many| u64::from(*many)).sum::<u64>() {
            if bytes.at >= bytes.bytes.len() {
                break;
            }
            bytes.varint();
        }
        (self.positions_at, self.positions_of) = (bytes.at, self.at);
        out.clear();
        let mut position = 0_u32;
        for _ in 0..self.numbers[self.at] {
            if bytes.at >= bytes.bytes.len() {
                break;
            }
            position = position.wrapping_add(bytes.small());
            out.push(position);
        }
    }

    fn read_block(&mut self) {
        let data = self.list.data;
        let entry = self.next * ENTRY_BYTES;
        let at = word(data, entry + 4) as usize;
        let bits = |place: usize| u32::from(data.get(place).copied().unwrap_or(0)).min(u32::BITS);
        let (row_bits, number_bits) = (bits(at), bits(at + 1));
        unpack(data, at + 2, row_bits, &mut self.rows);
        unpack(data, at + 2 + BLOCK / 8 * row_bits as usize, number_bits, &mut self.numbers);
        let mut row = self.before.unwrap_or(u32::MAX);
        for difference in &mut self.rows {
            row = row.wrapping_add(*difference).wrapping_add(1);
            *difference = row;
        }
        for number in &mut self.numbers {
            *number = number.wrapping_add(1);
        }
        self.len = BLOCK;
        (self.positions_at, self.positions_of) = (word(data, entry + 8) as usize, 0);
    }

    fn read_rest(&mut self, rest: usize) {
        let blocks = self.list.blocks();
        let mut at = blocks * ENTRY_BYTES;
        let mut positions = 0;
        if let Some(last) = blocks.checked_sub(1) {
            // Behind the last block, whose positions end where those of the rest begin.
            let entry = last * ENTRY_BYTES;
            let block = word(self.list.data, entry + 4) as usize;
            let bits = |place: usize| usize::from(self.list.data.get(place).copied().unwrap_or(0));
            at = block + 2 + BLOCK / 8 * (bits(block) + bits(block + 1));
            positions = word(self.list.data, at) as usize;
            at += 4;
        }
        let mut bytes = Bytes { bytes: self.list.data, at };
        let mut row = self.before.unwrap_or(u32::MAX);
        for place in 0..rest {
            let packed = bytes.varint();
            row = row.wrapping_add(u32::try_from(packed >> 1).unwrap_or(u32::MAX));
            self.rows[place] = row;
            self.numbers[place] = if packed & 1 == 1 { 1 } else { bytes.small() };
        }
        self.len = rest;
        (self.positions_at, self.positions_of) = (positions, 0);
    }
}

/// Appends the list of (row, number), rows ascending. `positions_at` gives where the positions of
/// the row at a place begin, where there are any; `bounds` of a full block's rows.
pub(super) fn encode(
    rows: &[(u32, u32)],
    positions_at: Option<&[u32]>,
    bounds: impl Fn(&[(u32, u32); BLOCK]) -> Bounds,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let (blocks, rest) = rows.as_chunks::<BLOCK>();
    out.resize(start + blocks.len() * ENTRY_BYTES, 0);
    let at_place = |place: usize| positions_at.and_then(|at| at.get(place)).copied().unwrap_or(0);
    // Wrapping, so that the first row's difference to -1 is one more than it.
    let mut before = u32::MAX;
    for (place, block) in blocks.iter().enumerate() {
        let offset = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        let (mut differences, mut numbers) = ([0; BLOCK], [0; BLOCK]);
        for (at, (row, number)) in block.iter().enumerate() {
            differences[at] = row.wrapping_sub(before).wrapping_sub(1);
            numbers[at] = number - 1;
            before = *row;
        }
        let bits = |values: &[u32; BLOCK]| {
            let all = values.iter().fold(0, |all, value| all | value);
            u32::BITS - all.leading_zeros()
        };
        let (row_bits, number_bits) = (bits(&differences), bits(&numbers));
        let number_bits = if number_bits > PACKED_BITS_MAX { u32::BITS } else { number_bits };
        // At most 32.
        out.extend([row_bits, number_bits].map(|bits| bits.to_le_bytes()[0]));
        pack(&differences, row_bits, out);
        pack(&numbers, number_bits, out);
        let entry = &mut out[start + place * ENTRY_BYTES..][..ENTRY_BYTES];
        entry[..4].copy_from_slice(&before.to_le_bytes());
        entry[4..8].copy_from_slice(&offset.to_le_bytes());
        entry[8..12].copy_from_slice(&at_place(place * BLOCK).to_le_bytes());
        let (bounds_at, _) = entry[12..].as_chunks_mut::<2>();
        for (at, bound) in bounds_at.iter_mut().zip(bounds(block)) {
            *at = bound.to_le_bytes();
        }
    }
    if !blocks.is_empty() && !rest.is_empty() {
        out.extend(at_place(blocks.len() * BLOCK).to_le_bytes());
    }
    for (row, number) in rest {
        let once = *number == 1;
        varint(u64::from(row.wrapping_sub(before)) * 2 + u64::from(once), out);
        if !once {
            varint(u64::from(*number), out);
        }
        before = *row;
    }
}

/// Appends 128 values of so many bits each.
fn pack(values: &[u32; BLOCK], bits: u32, out: &mut Vec<u8>) {
    let (mut pending, mut filled) = (0_u64, 0);
    for value in values {
        pending |= u64::from(*value) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            filled -= 8;
        }
    }
}

/// Reads 128 values of so many bits each, at most 32.
fn unpack(data: &[u8], at: usize, bits: u32, out: &mut [u32; BLOCK]) {
    let bytes = BLOCK / 8 * bits as usize;
    if bits == u32::BITS
        && let Some(whole) = data.get(at..at + bytes)
    {
        for (value, four) in out.iter_mut().zip(whole.as_chunks().0) {
            *value = u32::from_le_bytes(*four);
        }
        return;
    }
    let mask = (1_u64 << bits) - 1;
    // Eight bytes are read at a time, also at the end.
    let mut padded = [0; BLOCK * 4 + 8];
    let source = data.get(at..at + bytes + 8).unwrap_or_else(|| {
        let there = data.get(at..).unwrap_or(&[]);
        let there = &there[..there.len().min(bytes)];
        padded[..there.len()].copy_from_slice(there);
        &padded[..bytes + 8]
    });
    let mut bit = 0;
    for value in out {
        let from = (bit / 8) as usize;
        let eight = source.get(from..from + 8).and_then(|eight| eight.first_chunk());
        let eight = u64::from_le_bytes(eight.copied().unwrap_or([0; 8]));
        #[expect(clippy::cast_possible_truncation, reason = "at most 32 bits are left")]
        let low = (eight >> (bit % 8) & mask) as u32;
        *value = low;
        bit += bits;
    }
}

/// A place in bytes.
pub(crate) struct Bytes<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Bytes<'a> {
    /// Reads seven bits of each byte, the lowest first, up to one without the eighth.
    pub(crate) fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.bytes.get(self.at).copied().unwrap_or(0);
            self.at += 1;
            value |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 || shift > 56 {
                return value;
            }
        }
    }

    /// As [`Bytes::varint`], of what has 32 bits.
    pub(crate) fn small(&mut self) -> u32 {
        u32::try_from(self.varint()).unwrap_or(u32::MAX)
    }

    /// The next bytes; fewer at the end.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let start = self.at.min(self.bytes.len());
        let end = start.saturating_add(count).min(self.bytes.len());
        self.at = end;
        &self.bytes[start..end]
    }
}

/// Appends a number, seven bits to a byte.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value.to_le_bytes()[0] | 128);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// The number in four bytes; 0 past the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
    u32::from_le_bytes(four.unwrap_or([0; 4]))
}

/// The number in two bytes; 0 past the end.
pub(crate) fn short(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
    u16::from_le_bytes(two.unwrap_or([0; 2]))
}
