//! Building a graph, batch by batch.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::ops::Range;

use super::beam::Near;
use super::search::Scratch;
use super::{Config, Hnsw, Layer, NONE, Twins};
use crate::codes::Space;
use crate::executor::map_runs;
use crate::pages::Pages;
use crate::random::hash;
use crate::{Executor, RowId};

/// A batch is at most one part in so many of the rows that are in already: rows of one batch do
/// not see each other, and so few are not missed.
const BATCH_PART: usize = 50;
/// Rows of a batch at most: what it keeps before it is linked is bounded.
const BATCH_ROWS_MAX: usize = 8192;
/// Rows that one task searches for, and nodes that one task links back.
const TASK_ROWS: usize = 16;
const TASK_NODES: usize = 64;
/// Layers above the lowest, at most.
pub(super) const LEVEL_MAX: u32 = 15;

thread_local! {
    /// A walk's memory, kept by each thread that builds.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Builds the graph of a space's rows. The same for the same rows, configuration and seed, on any
/// number of threads (I4).
///
/// What it gives once the executor is stopped is a part of the graph.
///
/// About `rows * ef_construction * 20` distances, and `rows * (16 * m + 8)` bytes of memory while
/// it is built.
pub fn build(
    space: &dyn Space,
    twins: Twins,
    config: Config,
    seed: u64,
    executor: &dyn Executor,
) -> Hnsw {
    let mut draft = Draft::new(space, &twins, config, seed);
    let rows = draft.order.len();
    let mut inserted = rows.min(1);
    while inserted < rows && !executor.stopped() {
        let batch = (inserted / BATCH_PART).clamp(1, BATCH_ROWS_MAX);
        let end = rows.min(inserted + batch);
        draft.insert(space, inserted..end, executor);
        inserted = end;
    }
    if !executor.stopped() {
        draft.connect(space, executor);
    }
    draft.finish(space.rows(), twins)
}

/// A graph that is being built. Nodes are numbered in the order in which they are put in, highest
/// levels first, so that each layer has a part of them from the front; the lowest layer's nodes
/// are called by their rows.
pub(super) struct Draft {
    config: Config,
    order: Vec<RowId>,
    /// Layer 0 is the lowest.
    layers: Vec<DraftLayer>,
}

struct DraftLayer {
    nodes: usize,
    /// Nodes are called by numbers below this.
    names: usize,
    stride: usize,
    links: Pages<u32>,
    distances: Pages<f32>,
}

/// What a walk of the build looks for: so many of the nearest nodes of a layer to a row.
#[derive(Copy, Clone)]
pub(super) struct Find {
    pub(super) layer: usize,
    pub(super) row: RowId,
    pub(super) width: usize,
}

/// How many links of a layer are chosen.
#[derive(Copy, Clone)]
struct Choice {
    layer: usize,
    max: usize,
}

/// Links chosen for a new node, for each of its layers from the lowest.
type Chosen = Vec<Vec<Near>>;

impl DraftLayer {
    fn new(nodes: usize, names: usize, stride: usize) -> Self {
        let mut links = Pages::zeroed(names * stride);
        links.fill(NONE);
        Self { nodes, names, stride, links, distances: Pages::zeroed(names * stride) }
    }

    /// A node's links, [`NONE`] after the last.
    fn links(&self, node: u32) -> &[u32] {
        &self.links[node as usize * self.stride..][..self.stride]
    }

    /// How far each link leads.
    fn distances(&self, node: u32) -> &[f32] {
        &self.distances[node as usize * self.stride..][..self.stride]
    }

    fn set(&mut self, node: u32, links: &[Near]) {
        let first = node as usize * self.stride;
        for (place, near) in (first..first + self.stride).zip(links) {
            self.links[place] = near.node();
            self.distances[place] = near.distance;
        }
        if links.len() < self.stride {
            self.links[first + links.len()] = NONE;
        }
    }
}

impl Draft {
    fn new(space: &dyn Space, twins: &Twins, config: Config, seed: u64) -> Self {
        let mut node = vec![true; space.rows() as usize];
        twins.others().iter().for_each(|row| node[*row as usize] = false);
        let mut order: Vec<(Reverse<u32>, u64, u32)> = (0..space.rows())
            .filter(|row| node[*row as usize])
            .map(|row| {
                let random = hash(seed, u64::from(row));
                (Reverse(level(random, config.m)), random, row)
            })
            .collect();
        order.sort_unstable();
        let top = order.first().map_or(0, |(level, _, _)| level.0);
        let m = config.m as usize;
        let layers = (0..=top)
            .map(|layer| {
                let nodes = order.partition_point(|(level, _, _)| level.0 >= layer);
                // The lowest layer's nodes are called by their rows, of which there may be more.
                let names = if layer == 0 { node.len() } else { nodes };
                DraftLayer::new(nodes, names, if layer == 0 { 2 * m } else { m })
            })
            .collect();
        let order = order.into_iter().map(|(_, _, row)| RowId(row)).collect();
        Self { config, order, layers }
    }

    /// The highest layer that a node is in.
    fn level(&self, node: usize) -> usize {
        self.layers.iter().skip(1).take_while(|layer| node < layer.nodes).count()
    }

    fn insert(&mut self, space: &dyn Space, nodes: Range<usize>, executor: &dyn Executor) {
        let found = map_runs(executor, nodes.len(), TASK_ROWS, &|run| {
            SCRATCH.with_borrow_mut(|scratch| {
                let of_node = |place| self.choose(space, nodes.start + place, scratch);
                run.map(of_node).collect::<Vec<Chosen>>()
            })
        });
        let mut back: Vec<Vec<(u32, Near)>> = vec![Vec::new(); self.layers.len()];
        for (node, chosen) in nodes.zip(found.into_iter().flatten()) {
            for (layer, links) in chosen.into_iter().enumerate() {
                let name = self.name(layer, node);
                self.layers[layer].set(name, &links);
                let from = links.into_iter();
                back[layer].extend(from.map(|to| (to.node(), Near::new(to.distance, name))));
            }
        }
        for (layer, edges) in back.into_iter().enumerate() {
            self.link_back(space, layer, edges, executor);
        }
    }

    /// What a node is called in a layer.
    fn name(&self, layer: usize, node: usize) -> u32 {
        if layer == 0 { self.order[node].0 } else { u32::try_from(node).unwrap_or(NONE) }
    }

    fn row(&self, layer: usize, name: u32) -> RowId {
        if layer == 0 { RowId(name) } else { self.order[name as usize] }
    }

    /// Chooses the links of a new node in each of its layers, on the graph as it is.
    fn choose(&self, space: &dyn Space, node: usize, scratch: &mut Scratch) -> Chosen {
        let (row, level) = (self.order[node], self.level(node));
        let m = self.config.m as usize;
        let mut entry = Near::new(f32::INFINITY, 0);
        let mut chosen = vec![Vec::new(); level + 1];
        for layer in (0..self.layers.len()).rev() {
            if layer == 0 {
                entry = Near::new(entry.distance, self.order[entry.node() as usize].0);
            }
            let width = if layer > level { 1 } else { self.config.ef_construction as usize };
            self.walk(space, Find { layer, row, width }, entry.node(), scratch);
            let Some(nearest) = scratch.beam.nearest().next() else { continue };
            entry = nearest;
            if layer <= level {
                let candidates: Vec<Near> = scratch.beam.nearest().collect();
                let choice = Choice { layer, max: m };
                chosen[layer] = self.diverse(space, choice, &candidates, scratch);
            }
        }
        chosen
    }

    /// The row of the node that every walk begins at.
    pub(super) fn entry(&self) -> Option<u32> {
        self.order.first().map(|row| row.0)
    }

    pub(super) fn nodes(&self) -> usize {
        self.order.len()
    }

    pub(super) fn row_of(&self, node: usize) -> RowId {
        self.order[node]
    }

    pub(super) fn width(&self) -> usize {
        self.config.ef_construction as usize
    }

    pub(super) fn base_links(&self, row: u32) -> &[u32] {
        self.layers[0].links(row)
    }

    /// Whether a row of the lowest layer can have one link more.
    pub(super) fn has_room(&self, row: u32) -> bool {
        self.base_links(row).last() == Some(&NONE)
    }

    /// Gives a row of the lowest layer one link more, in place of its last if it is full.
    pub(super) fn link(&mut self, row: u32, to: u32, distance: f32) {
        let base = &mut self.layers[0];
        let links = base.links(row);
        let place = links.iter().position(|link| *link == NONE).unwrap_or(links.len() - 1);
        let place = row as usize * base.stride + place;
        base.links[place] = to;
        base.distances[place] = distance;
    }

    /// Finds the nearest nodes of a layer to a row.
    pub(super) fn walk(&self, space: &dyn Space, find: Find, entry: u32, scratch: &mut Scratch) {
        let Find { layer, row, width } = find;
        let nodes = &self.layers[layer];
        scratch.beam.reset(width);
        scratch.visited.reset(nodes.names);
        scratch.nodes.clear();
        scratch.nodes.push(entry);
        scratch.visited.insert(entry);
        loop {
            scratch.batch.clear();
            scratch.batch.extend(scratch.nodes.iter().map(|name| self.row(layer, *name)));
            scratch.distances.resize(scratch.batch.len(), 0.0);
            space.distances(row, &scratch.batch, &mut scratch.distances);
            for (name, distance) in scratch.nodes.iter().zip(&scratch.distances) {
                if *distance <= scratch.beam.bound() {
                    scratch.beam.offer(*distance, *name);
                }
            }
            let Some(next) = scratch.beam.follow() else { break };
            scratch.nodes.clear();
            for link in nodes.links(next).iter().take_while(|link| **link != NONE) {
                if scratch.visited.insert(*link) {
                    scratch.nodes.push(*link);
                }
            }
        }
    }

    /// At most `max` of the candidates (nearest first), none nearer to one kept before it than to
    /// the node: links then lead in every direction (the paper's algorithm 4).
    fn diverse(
        &self,
        space: &dyn Space,
        choice: Choice,
        candidates: &[Near],
        scratch: &mut Scratch,
    ) -> Vec<Near> {
        /// Kept nodes compared at a time.
        const STEP: usize = 4;
        let Choice { layer, max } = choice;
        let mut kept: Vec<Near> = Vec::with_capacity(max);
        let mut rows: Vec<RowId> = Vec::with_capacity(max);
        for candidate in candidates {
            if kept.len() == max {
                break;
            }
            let row = self.row(layer, candidate.node());
            let near_one = rows.chunks(STEP).any(|rows| {
                scratch.distances.resize(rows.len(), 0.0);
                space.distances(row, rows, &mut scratch.distances);
                scratch.distances.iter().any(|distance| *distance < candidate.distance)
            });
            if !near_one {
                kept.push(*candidate);
                rows.push(row);
            }
        }
        kept
    }

    /// Links old nodes to the new ones that chose them, again choosing where there are too many.
    fn link_back(
        &mut self,
        space: &dyn Space,
        layer: usize,
        mut edges: Vec<(u32, Near)>,
        executor: &dyn Executor,
    ) {
        edges.sort_unstable_by_key(|(to, from)| (*to, from.node()));
        let groups: Vec<&[(u32, Near)]> = edges.chunk_by(|a, b| a.0 == b.0).collect();
        let linked = map_runs(executor, groups.len(), TASK_NODES, &|run| {
            SCRATCH.with_borrow_mut(|scratch| {
                let merged = |group: &&[(u32, Near)]| self.merged(space, layer, group, scratch);
                groups[run].iter().map(merged).collect::<Vec<Vec<Near>>>()
            })
        });
        for (group, links) in groups.iter().zip(linked.into_iter().flatten()) {
            self.layers[layer].set(group[0].0, &links);
        }
    }

    /// A node's links with new ones.
    fn merged(
        &self,
        space: &dyn Space,
        layer: usize,
        group: &[(u32, Near)],
        scratch: &mut Scratch,
    ) -> Vec<Near> {
        let (node, nodes) = (group[0].0, &self.layers[layer]);
        let links = nodes.links(node).iter().take_while(|link| **link != NONE);
        let old = links.zip(nodes.distances(node));
        let mut links: Vec<Near> = old.map(|(link, far)| Near::new(*far, *link)).collect();
        links.extend(group.iter().map(|(_, from)| *from));
        if links.len() <= nodes.stride {
            return links;
        }
        links.sort_unstable_by(|a, b| {
            a.distance.total_cmp(&b.distance).then(a.node().cmp(&b.node()))
        });
        self.diverse(space, Choice { layer, max: nodes.stride }, &links, scratch)
    }

    fn finish(self, rows: u32, twins: Twins) -> Hnsw {
        let mut layers = self.layers.into_iter();
        let (base, base_stride) = layers.next().map_or_else(
            || (Pages::zeroed(0), 2 * self.config.m as usize),
            |layer| (layer.links, layer.stride),
        );
        let mut upper_rows: Vec<u32> = Vec::new();
        let upper: Vec<Layer> = layers
            .map(|layer| {
                if upper_rows.is_empty() {
                    upper_rows = self.order[..layer.nodes].iter().map(|row| row.0).collect();
                }
                Layer { stride: layer.stride, links: layer.links.to_vec() }
            })
            .collect();
        let first = self.order.first().map_or(0, |row| row.0);
        Hnsw { rows, base, base_stride, upper_rows, upper, first, twins, sketch: None }
    }
}

/// Layers above the lowest that a node is in: one node in `m` is in each next one.
fn level(mut random: u64, m: u32) -> u32 {
    let m = u64::from(m.max(2));
    let mut level = 0;
    while level < LEVEL_MAX && random.is_multiple_of(m) {
        random /= m;
        level += 1;
    }
    level
}
