//! Threads for work on disks: reading, hashing, staging, committing.
//!
//! Jobs never wait for the threads that gave them: answers go into channels without bound, and how
//! much is asked for is bounded by whoever asks.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use crate::disk::staging::Scratch;
use crate::engine::chunker::ChunkBuffer;

/// Memory that a thread keeps from job to job.
#[derive(Debug, Default)]
pub struct Memory {
    /// For chunking.
    pub chunks: ChunkBuffer,
    /// For putting files together.
    pub scratch: Scratch,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

/// A fixed number of threads that do jobs.
pub struct Pool {
    shared: Sender<Job>,
    lanes: Vec<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts as many threads as the machine has cores, and two at least.
    pub fn start() -> std::io::Result<Self> {
        let count = thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        let (shared, jobs) = unbounded();
        let mut pool = Self { shared, lanes: Vec::new(), threads: Vec::new() };
        for n in 0..count {
            let (lane, own) = unbounded();
            let jobs = jobs.clone();
            let run = move || work(&own, &jobs);
            pool.threads.push(thread::Builder::new().name(format!("disk-{n}")).spawn(run)?);
            pool.lanes.push(lane);
        }
        Ok(pool)
    }

    /// Has a job done by any thread.
    pub fn run(&self, job: impl FnOnce(&mut Memory) + Send + 'static) {
        // Nobody listens only once the pool is being ended; then the job is not wanted any more.
        self.shared.send(Box::new(job)).ok();
    }

    /// Has a job done after all jobs that were given with the same key.
    pub fn run_in_order(&self, key: u64, job: impl FnOnce(&mut Memory) + Send + 'static) {
        let lane = (key % self.lanes.len() as u64) as usize;
        self.lanes[lane].send(Box::new(job)).ok();
    }

    /// Ends the threads, once all jobs are done.
    pub fn finish(self) {
        drop((self.shared, self.lanes));
        for thread in self.threads {
            // A job that panicked has said so on stderr already.
            thread.join().ok();
        }
    }
}

fn work(own: &Receiver<Job>, shared: &Receiver<Job>) {
    let mut memory = Memory::default();
    let (mut own_open, mut shared_open) = (true, true);
    while own_open || shared_open {
        // What has to be done in order comes first: somebody is sending it now.
        if let Ok(job) = own.try_recv() {
            job(&mut memory);
            continue;
        }
        let none = crossbeam_channel::never();
        select! {
            recv(if own_open { own } else { &none }) -> job => match job {
                Ok(job) => job(&mut memory),
                Err(_) => own_open = false,
            },
            recv(if shared_open { shared } else { &none }) -> job => match job {
                Ok(job) => job(&mut memory),
                Err(_) => shared_open = false,
            },
        }
    }
}
