//! Tables in a file.

use std::io;

use super::hashing::Hashing;
use super::{BITS_MAX, Config, Lsh, TABLES_MAX, Table};
use crate::walk::is_permutation;
use crate::{Malformed, Metric, SectionReader, SectionWriter};

impl Lsh {
    /// Writes the tables.
    pub fn write(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.number(u64::from(self.config.num_tables))?;
        out.number(u64::from(self.config.hash_size))?;
        out.number(self.seed)?;
        out.number(u64::from(self.hashing.scale.to_bits()))?;
        out.array(&self.hashing.center)?;
        for table in &self.tables {
            out.array(&table.codes)?;
            out.array(&table.starts)?;
            out.array(&table.rows)?;
        }
        Ok(())
    }

    /// Reads the tables of `rows` rows of `dims` numbers that [`Lsh::write`] wrote (I5).
    ///
    /// Whatever the bytes are, tables that are read can be searched. That their hashes are those of
    /// the rows is for a checksum to say.
    pub fn read(
        from: &mut SectionReader<'_>,
        metric: Metric,
        rows: u32,
        dims: usize,
    ) -> Result<Self, Malformed> {
        let num_tables = from.small("the number of tables", TABLES_MAX)?;
        let hash_size = from.small("the bits of a hash", BITS_MAX)?;
        let config = Config::new(num_tables, hash_size)
            .ok_or_else(|| from.malformed("tables that have hashes"))?;
        let seed = from.number("the seed of tables")?;
        let scale = f32::from_bits(from.small("the scale of rows", u32::MAX)?);
        let width = dims + usize::from(metric == Metric::Dot);
        let center = from.array_of("the center of rows", width)?.to_vec();
        let tables = (0..num_tables).map(|_table| Table::read(from, config, rows));
        let tables = tables.collect::<Result<Vec<Table>, Malformed>>()?;
        let mut hashing = Hashing::new(metric, dims, scale, config, seed);
        hashing.center = center;
        Ok(Self { rows, config, seed, hashing, tables })
    }
}

impl Table {
    fn read(from: &mut SectionReader<'_>, config: Config, rows: u32) -> Result<Self, Malformed> {
        let codes = from.array::<u32>("the hashes of a table")?;
        let ascend = codes.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || codes.last().is_some_and(|code| code >> config.hash_size != 0) {
            return Err(from.malformed("hashes that ascend"));
        }
        let starts = from.array_of::<u32>("the starts of buckets", codes.len() + 1)?;
        let ascend = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascend || starts.first() != Some(&0) || starts.last() != Some(&rows) {
            return Err(from.malformed("starts that ascend"));
        }
        let order = from.array_of::<u32>("the rows of a table", rows as usize)?;
        if !is_permutation(order, rows) {
            return Err(from.malformed("a table that has each row once"));
        }
        Ok(Self { codes: codes.to_vec(), starts: starts.to_vec(), rows: order.to_vec() })
    }
}
