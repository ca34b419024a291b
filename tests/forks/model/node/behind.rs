//! Who is behind: subscribers that catch up, and a stream that is read again.

use fanfare::broker::{BrokerError, Page, Recovery};
use fanfare::hub::Contents;
use fanfare::model::{Encode as _, Position, WireFormat};
use fanfare::relay::follow::{self, CatchUp, Missed, Step};

use super::{AHEAD_AFTER, Done, Node, RETRY_AFTER, Ref};
use crate::model::record::{Record, Records};

impl Node {
    pub(super) fn send_page(&mut self, connection: Ref, page: &Page) {
        let Some(top) = self.position() else { return };
        let mut bytes = Vec::new();
        let shown = follow::presentable(page, top);
        let course = self.course(connection);
        let mut first = course.is_some_and(|course| course.is_new_epoch(top));
        for publication in shown {
            let format = WireFormat::Json;
            Records.publication(
                format,
                &self.channel,
                publication,
                Some(top.epoch),
                std::mem::take(&mut first),
                &mut bytes,
            );
        }
        if let Some(last) = shown.last() {
            let contents = Contents {
                publications: u32::try_from(shown.len()).expect("few"),
                ..Contents::default()
            };
            self.hub.send_contents(connection.index, &bytes, contents);
            let reached = Position::new(top.epoch, last.offset);
            if let Some(course) = self.course(connection) {
                course.advance(reached);
            }
        }
        self.catching_up.push(connection);
    }

    pub(super) fn course(&mut self, connection: Ref) -> Option<&mut CatchUp> {
        self.find(connection)?.catch_up.as_mut()
    }

    pub(super) fn caught_up(
        &mut self,
        connection: Ref,
        from: Position,
        recovery: Result<Recovery, BrokerError>,
    ) {
        if !self
            .course(connection)
            .is_some_and(|it| it.handle_page(from))
        {
            return;
        }
        match recovery {
            Ok(Recovery::Recovered(page)) => self.send_page(connection, &page),
            Ok(Recovery::Lost { .. }) => {
                let gap = follow::give_up(from, self.position());
                self.send(connection, Record::Gap(gap.position.expect("history")));
                self.go_live(connection);
            }
            Err(_) => self.later(RETRY_AFTER, Done::Retry(connection)),
        }
    }

    pub(super) fn step(&mut self, connection: Ref) {
        let Some(index) = self.hub.find_channel(&self.channel) else {
            return;
        };
        let (position, stage) = match self.hub.channel(index) {
            Some(slot) => (slot.position(), slot.stage()),
            None => return,
        };
        let queue = self.hub.queue(connection.index);
        let has_room = queue.is_some_and(|queue| queue.is_empty());
        let Some(course) = self.course(connection) else {
            return;
        };
        match course.step(position, stage, has_room) {
            Step::GoLive => self.go_live(connection),
            Step::Wait => self.later(AHEAD_AFTER, Done::Retry(connection)),
            Step::Read(from) => {
                let recovery = self.recover(from);
                self.when_done(async move { Done::CaughtUp(connection, from, recovery.await) });
            }
            Step::Rest => {}
        }
    }

    pub(super) fn missed(&mut self, seen: u64) {
        let Some(index) = self.hub.find_channel(&self.channel) else {
            return;
        };
        self.line.note(|| format!("a hole before {seen}"));
        if let Missed::Read(position) = follow::missed(&mut self.hub, index, seen, &mut Records) {
            self.repairs.push_back(position);
        }
    }

    pub(super) fn repaired(&mut self, asked: Position, recovery: Result<Recovery, BrokerError>) {
        let Some(index) = self.hub.find_channel(&self.channel) else {
            return;
        };
        if !follow::awaits(&self.hub, index, asked) {
            return;
        }
        let Ok(recovery) = recovery else {
            return self.later(RETRY_AFTER, Done::RepairAgain(asked));
        };
        self.line
            .note(|| format!("reads after {asked}: {}", brief(&recovery)));
        let repaired = follow::repair(&mut self.hub, index, asked, recovery, &mut Records);
        self.repairs.extend(repaired.again);
    }
}

/// What a recovery says, without the publications.
fn brief(recovery: &Recovery) -> String {
    match recovery {
        Recovery::Recovered(page) => {
            let (count, top) = (page.publications.len(), page.top);
            format!("{count} publications, top {top}")
        }
        lost @ Recovery::Lost { .. } => format!("{lost:?}"),
    }
}
