//! The nearest nodes that a walk has found, and which of them it has still to follow.

/// Marks a node whose links were followed; no segment has so many rows.
const FOLLOWED: u32 = 1 << 31;

/// A node and its distance.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) distance: f32,
    node: u32,
}

impl Near {
    pub(super) fn new(distance: f32, node: u32) -> Self {
        Self { distance, node }
    }

    pub(super) fn node(self) -> u32 {
        self.node & !FOLLOWED
    }

    /// Order of (distance, node).
    #[inline]
    pub(super) fn before(self, other: Self) -> bool {
        self.distance < other.distance
            || (self.distance <= other.distance && self.node() < other.node())
    }
}

/// The `width` nearest nodes, nearest first. A sorted array: up to some hundred entries it is
/// quicker than heaps, and what it holds does not depend on the order of offers.
#[derive(Debug, Default)]
pub(super) struct Beam {
    entries: Vec<Near>,
    width: usize,
    /// No entry before this one is still to be followed.
    cursor: usize,
}

impl Beam {
    pub(super) fn reset(&mut self, width: usize) {
        self.entries.clear();
        self.entries.reserve(width);
        self.width = width;
        self.cursor = 0;
    }

    /// A distance above this is not kept.
    #[inline]
    pub(super) fn bound(&self) -> f32 {
        if self.entries.len() < self.width {
            f32::INFINITY
        } else {
            self.entries.last().map_or(f32::NEG_INFINITY, |last| last.distance)
        }
    }

    #[inline]
    pub(super) fn offer(&mut self, distance: f32, node: u32) {
        let near = Near { distance, node };
        if self.entries.len() == self.width {
            if !self.entries.last().is_some_and(|last| near.before(*last)) {
                return;
            }
            self.entries.pop();
        }
        let place = self.entries.partition_point(|entry| entry.before(near));
        self.entries.insert(place, near);
        self.cursor = self.cursor.min(place);
    }

    /// The nearest node that was not followed yet, which is followed now.
    #[inline]
    pub(super) fn follow(&mut self) -> Option<u32> {
        while let Some(entry) = self.entries.get_mut(self.cursor) {
            self.cursor += 1;
            if entry.node & FOLLOWED == 0 {
                let node = entry.node;
                entry.node |= FOLLOWED;
                return Some(node);
            }
        }
        None
    }

    /// The node that [`Self::follow`] would give.
    #[inline]
    pub(super) fn next(&self) -> Option<u32> {
        let rest = self.entries.get(self.cursor..)?;
        rest.iter().find(|entry| entry.node & FOLLOWED == 0).map(|entry| entry.node)
    }

    /// What is kept, nearest first.
    pub(super) fn nearest(&self) -> impl ExactSizeIterator<Item = Near> {
        self.entries.iter().map(|entry| Near { distance: entry.distance, node: entry.node() })
    }
}
