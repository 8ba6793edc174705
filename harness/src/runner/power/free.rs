//! Recording clients that run free: each in a thread of its own, and the owner beside them, so that calls overlap
//! inside the store. The seed does not determine such a run; its trace does, and that is what is kept.

use super::record::{Opener, Recording, Step, disk, files, slots};
use crate::crash::{Mark, Trace};
use crate::oracle::kv::Written;
use crate::subject::{Session, SubjectError};
use crate::workload::stream::{Call, Held};
use engine::fs::{MemFs, Recorder, TraceFs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Runs the clients' calls of these steps on threads of their own; what the owner does is done beside them.
pub(crate) fn record(opener: &Opener<'_>, steps: &[Step]) -> Result<Recording, SubjectError> {
    let start = files(opener.cell);
    let base = match start.is_empty() {
        true => vec![Default::default(); opener.tables.len()],
        false => opener.open(Arc::new(disk(&start)))?.contents()?,
    };
    let mem: MemFs = disk(&start);
    let fs = TraceFs::over(&mem);
    let session = opener.open(Arc::new(fs.clone()))?;
    let recorder = fs.recorder();
    recorder.note(Mark::Opened.note());
    let clients = steps.iter().filter_map(|s| if let Step::Call { client, .. } = s { Some(client + 1) } else { None }).max();
    let error = Mutex::new(None);
    let fail = |e: SubjectError| {
        error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e.to_string());
    };
    let calls = |of: usize| {
        steps.iter().filter_map(move |s| match s {
            Step::Call { client, call } if *client == of => Some(call),
            _ => None,
        })
    };
    let writes: Vec<Vec<Written>> = thread::scope(|scope| {
        let session = &*session;
        let fail = &fail;
        let running: Vec<_> = (0..clients.unwrap_or(0))
            .map(|client| {
                let calls: Vec<&Call> = calls(client).collect();
                scope.spawn(move || drive(session, recorder, client, &calls, fail))
            })
            .collect();
        for step in steps.iter().filter(|s| matches!(s, Step::Shrink | Step::Sync)) {
            let done = if *step == Step::Sync { session.sync() } else { session.shrink().map(drop) };
            done.unwrap_or_else(fail);
            thread::yield_now();
        }
        running.into_iter().map(|r| r.join().unwrap_or_default()).collect()
    });
    recorder.note(Mark::Work.note());
    session.close().unwrap_or_else(fail);
    let trace = Trace::new(disk(&start).dirs(), start, recorder.entries());
    let (writes, syncs) = slots(&trace, writes, Vec::new());
    let opened = trace.marks.iter().find(|(_, m)| *m == Mark::Opened).map_or(0, |(at, _)| *at);
    let error = error.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Recording { trace, writes, syncs, base, opened, error })
}

fn drive(
    session: &dyn Session,
    recorder: &Recorder,
    client: usize,
    calls: &[&Call],
    fail: &dyn Fn(SubjectError),
) -> Vec<Written> {
    let (mut writes, mut held): (Vec<Written>, _) = (Vec::new(), Held::default());
    for call in calls {
        let Some(write) = Written::of(call, held.due(call)) else { continue };
        let number = writes.len();
        writes.push(write);
        recorder.note(Mark::Begin { client, number }.note());
        let done = call.make(session, &mut held);
        recorder.note(if done.is_ok() { Mark::Acked { client, number } } else { Mark::Failed { client, number } }.note());
        match done {
            Ok(answer) => writes[number].answered(call, &answer),
            Err(e) => fail(e),
        }
        // On few processors a thread would be done before the next begins.
        thread::yield_now();
    }
    writes
}
