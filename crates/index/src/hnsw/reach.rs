//! Every node can be reached: what pruning cut off is linked again.

use std::collections::{BTreeSet, VecDeque};

use super::NONE;
use super::build::{Draft, Find};
use super::search::Scratch;
use crate::Executor;
use crate::codes::Space;

impl Draft {
    /// Links every row that no path leads to, from the nearest row that has room for a link.
    pub(super) fn connect(&mut self, space: &dyn Space, executor: &dyn Executor) {
        let Some(entry) = self.entry() else { return };
        let mut reached = vec![false; space.rows() as usize];
        self.reach(entry, &mut reached);
        let mut scratch = Scratch::default();
        let mut full = BTreeSet::new();
        for node in 0..self.nodes() {
            let row = self.row_of(node);
            if reached[row.0 as usize] || executor.stopped() {
                continue;
            }
            let find = Find { layer: 0, row, width: self.width() };
            self.walk(space, find, entry, &mut scratch);
            let near: Vec<_> = scratch.beam.nearest().collect();
            let room = near.iter().find(|near| self.has_room(near.node()));
            // Where all are full, the nearest gives up its farthest link. What that led to has
            // other ways in nearly always; a walk for it starts in the layers above besides.
            // A link that was given here is not taken away again.
            let other = near.iter().find(|near| !full.contains(&near.node()));
            if let Some(near) = room.or(other) {
                if room.is_none() {
                    full.insert(near.node());
                }
                self.link(near.node(), row.0, near.distance);
                self.reach(row.0, &mut reached);
            }
        }
    }

    /// Marks what can be reached from a row.
    fn reach(&self, from: u32, reached: &mut [bool]) {
        let mut open = VecDeque::from([from]);
        reached[from as usize] = true;
        while let Some(row) = open.pop_front() {
            for link in self.base_links(row).iter().take_while(|link| **link != NONE) {
                if !std::mem::replace(&mut reached[*link as usize], true) {
                    open.push_back(*link);
                }
            }
        }
    }
}
