//! Orders to all nodes: each node executes each of them once, whatever becomes of the connection that brings them.
//!
//! An order is published, and stands for a minute in a short stream beside that. A node whose connection ended, or to which
//! another server is to bring them from now on, reads there what it did not hear, and what comes meanwhile waits behind
//! that: so orders are executed as they were given. A node that begins executes none from before.
//!
//! Each has an id that is drawn by who gives it, and a node remembers those that it executed. The ids of the stream would not
//! do: they go by the server's clock, and one that lost its data, or took the place of another, may begin again below.
//! An order without an id (of an older version, or of a server without memory) is in no stream, and executed as it comes.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{
    BrokerError, Command, Control, Inner, Value, broker_error, envelope, lock, millis, read,
    scripts,
};
use crate::redis::CallError;

/// How many orders are kept, and for how long: longer than it takes to connect again, and not so long that an order finds
/// somebody who came long after it.
const KEPT_MAX: u64 = 4096;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How many ids are remembered: more than the stream has, so that nothing that still stands there was forgotten. At most
/// about 400 kB.
const REMEMBERED_MAX: usize = 2 * 4096;

/// The most orders that wait until what was missed is read; more are executed as they come.
const HELD_MAX: usize = 1024;

/// How many are read at once.
const PAGE: usize = 256;

/// The most pages: others may add meanwhile.
const PAGES_MAX: usize = 64;

/// How long a read that failed waits to be tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An order, and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) id: Option<u64>,
    pub(super) control: Control,
}

/// Which orders this node executed, and whether there are others.
#[derive(Debug, Default)]
pub(super) struct Orders {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whether the stream was never read: what stands there concerns nobody here.
    is_new: bool,
    /// Whether something may stand in the stream that was not heard.
    is_behind: bool,
    /// Whether it is to be read now.
    is_due: bool,
    /// How often orders ceased to come. What was read in an earlier life may lack some.
    life: u64,
    /// What came since, in its order.
    held: Vec<Order>,
    executed: HashSet<u64>,
    /// The same, the oldest first.
    oldest: VecDeque<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            is_new: true,
            is_behind: true,
            is_due: false,
            life: 0,
            held: Vec::new(),
            executed: HashSet::new(),
            oldest: VecDeque::new(),
        }
    }
}

impl State {
    /// Whether it was not known.
    fn remember(&mut self, id: u64) -> bool {
        if !self.executed.insert(id) {
            return false;
        }
        self.oldest.push_back(id);
        if self.oldest.len() > REMEMBERED_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.executed.remove(&oldest);
        }
        true
    }

    fn execute(&mut self, order: &Order, execute: &impl Fn(&Control)) {
        if order.id.is_none_or(|id| self.remember(id)) {
            execute(&order.control);
        }
    }
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether it is not known yet which orders are from before this node.
    pub(super) fn is_new(&self) -> bool {
        self.lock().is_new
    }

    /// Orders do not come any more, or from elsewhere.
    pub(super) fn lost(&self) {
        let mut state = self.lock();
        state.is_behind = true;
        state.is_due = false;
        state.life += 1;
    }

    /// They come again: what was missed is to be read.
    pub(super) fn back(&self) {
        self.lock().is_due = true;
    }

    /// What was read may have been of other data.
    pub(super) fn doubt(&self) {
        let mut state = self.lock();
        state.is_due |= !state.is_behind;
    }

    /// Whether to read what was missed, told once; and for which life.
    fn take_due(&self) -> Option<u64> {
        let mut state = self.lock();
        std::mem::take(&mut state.is_due).then_some(state.life)
    }

    fn is_in(&self, life: u64) -> bool {
        self.lock().life == life
    }

    /// One came. `execute` is called under the lock: so that they stay in order. It does not call back.
    pub(super) fn came(&self, order: Order, execute: impl Fn(&Control)) {
        let mut state = self.lock();
        if state.is_behind && order.id.is_some() && state.held.len() < HELD_MAX {
            state.held.push(order);
        } else {
            state.execute(&order, &execute);
        }
    }

    /// These stand in the stream, the oldest first.
    pub(super) fn read(&self, life: u64, stand: &[Order], execute: impl Fn(&Control)) {
        let mut state = self.lock();
        let state = &mut *state;
        if state.life != life {
            return;
        }
        let held = std::mem::take(&mut state.held);
        if std::mem::take(&mut state.is_new) {
            let came: HashSet<_> = held.iter().map(|order| order.id).collect();
            let before = stand.iter().filter(|order| !came.contains(&order.id));
            for id in before.filter_map(|order| order.id) {
                state.remember(id);
            }
        }
        for order in stand.iter().chain(&held) {
            state.execute(order, &execute);
        }
        state.is_behind = false;
    }
}

impl Inner {
    /// Hands an order to every node.
    pub(super) fn order(
        &self,
        control: Control,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send + use<> {
        let mut order = Order {
            id: Some(rand::random()),
            control,
        };
        let kept = envelope::pack_order(&order);
        order.id = None;
        let command = Command::script(&scripts::ORDER, &[&self.keys.orders()])
            .word(self.keys.control())
            .word(kept)
            .word(envelope::pack_order(&order))
            .number(KEPT_MAX)
            .number(millis(KEPT_FOR));
        let answer = self.redis.call_one(command);
        async move {
            let answer = answer.await.map_err(broker_error)?;
            if read::number(&answer) == Some(0) {
                tracing::warn!(
                    "redis has no memory left: whoever does not hear an order now will not find it"
                );
            }
            Ok(())
        }
    }

    /// Reads what was missed, when that is to be done.
    pub(super) fn read_orders(self: &Arc<Self>) {
        let Some(life) = self.interests.orders().take_due() else {
            return;
        };
        let inner = self.clone();
        self.redis.spawn(Box::pin(async move {
            let mut is_told = false;
            while inner.interests.orders().is_in(life) {
                match inner.orders_that_stand().await {
                    Ok(stand) => return inner.interests.orders_read(life, &stand),
                    Err(CallError::Refused(why)) if !is_told => {
                        is_told = true;
                        tracing::warn!(why, "redis refuses to tell the orders that were missed");
                    }
                    Err(_) => {}
                }
                inner.redis.pause(AGAIN_AFTER).await;
            }
        }));
    }

    async fn orders_that_stand(&self) -> Result<Vec<Order>, CallError> {
        let mut orders = Vec::new();
        let mut from = "-".to_owned();
        for _ in 0..PAGES_MAX {
            let command = Command::new("XRANGE")
                .word(self.keys.orders())
                .word(&from)
                .word("+")
                .word("COUNT")
                .number(PAGE as u64);
            let page = self.redis.call_one(command).await?.into_array();
            orders.extend(page.iter().filter_map(order));
            match page.last().and_then(id) {
                Some(last) if page.len() >= PAGE => from = format!("({last}"),
                _ => break,
            }
        }
        Ok(orders)
    }
}

/// The id of a stream's entry.
fn id(entry: &Value) -> Option<String> {
    match entry {
        Value::Array(parts) => parts.first()?.as_string(),
        _ => None,
    }
}

/// The order of a stream's entry; `None` for one that this version does not know.
fn order(entry: &Value) -> Option<Order> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let Value::Array(fields) = parts.get(1)? else {
        return None;
    };
    envelope::unpack_order(fields.get(1)?.as_bytes()?)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::broker::Target;

    fn number(id: Option<u64>, number: u64) -> Order {
        let control = Control::Disconnect(Target::User(number.to_string().into()));
        Order { id, control }
    }

    fn of(id: u64) -> Order {
        number(Some(id), id)
    }

    /// Orders, and which of them were executed.
    #[derive(Default)]
    struct Node {
        orders: Orders,
        executed: RefCell<Vec<u64>>,
    }

    impl Node {
        /// One that has begun, and these orders are from before.
        fn begun(before: &[u64]) -> Self {
            let node = Self::default();
            node.orders.back();
            node.catch_up(before);
            node
        }

        fn note(&self, control: &Control) {
            let Control::Disconnect(Target::User(user)) = control else {
                panic!("{control:?}");
            };
            self.executed.borrow_mut().push(user.parse().expect("one"));
        }

        fn came(&self, order: Order) {
            self.orders.came(order, |control| self.note(control));
        }

        fn catch_up(&self, stand: &[u64]) {
            let life = self.orders.take_due().expect("it is to be read");
            self.read(life, stand);
        }

        fn read(&self, life: u64, stand: &[u64]) {
            let stand: Vec<_> = stand.iter().copied().map(of).collect();
            self.orders.read(life, &stand, |control| self.note(control));
        }

        fn executed(&self) -> Vec<u64> {
            std::mem::take(&mut self.executed.borrow_mut())
        }
    }

    #[test]
    fn what_was_missed_is_executed_once_and_before_what_comes() {
        let node = Node::begun(&[]);
        node.came(of(1));
        assert_eq!(node.executed(), [1]);
        node.orders.lost();
        node.came(of(4));
        node.orders.back();
        node.came(of(5));
        assert_eq!(
            node.executed(),
            Vec::<u64>::new(),
            "they wait for what was missed"
        );
        node.catch_up(&[1, 2, 3, 4]);
        assert_eq!(node.executed(), [2, 3, 4, 5]);
        node.came(of(5));
        node.came(of(6));
        assert_eq!(node.executed(), [6]);
        assert_eq!(node.orders.take_due(), None);
    }

    #[test]
    fn what_stood_there_before_the_node_began_is_not_executed() {
        let node = Node::default();
        assert!(node.orders.is_new());
        node.came(of(3));
        node.orders.back();
        node.catch_up(&[1, 2, 3]);
        assert_eq!(node.executed(), [3]);
        node.orders.lost();
        node.orders.back();
        node.catch_up(&[1, 2, 3, 4]);
        assert_eq!(node.executed(), [4]);
    }

    #[test]
    fn what_was_read_before_orders_ceased_to_come_again_is_not_taken() {
        let node = Node::begun(&[]);
        node.orders.lost();
        node.orders.back();
        let life = node.orders.take_due().expect("it is to be read");
        node.orders.lost();
        node.read(life, &[1]);
        node.came(of(2));
        assert_eq!(node.executed(), Vec::<u64>::new());
        node.orders.back();
        node.catch_up(&[1, 2]);
        assert_eq!(node.executed(), [1, 2]);
    }

    #[test]
    fn a_server_that_lost_its_data_hides_nothing() {
        let node = Node::begun(&[]);
        node.came(of(9));
        node.orders.doubt();
        node.catch_up(&[1]);
        node.orders.lost();
        node.orders.back();
        node.catch_up(&[2]);
        assert_eq!(node.executed(), [9, 1, 2]);
    }

    #[test]
    fn an_order_without_an_id_is_executed_as_it_comes() {
        let node = Node::default();
        node.came(number(None, 1));
        node.came(number(None, 1));
        assert_eq!(node.executed(), [1, 1]);
    }

    #[test]
    fn neither_memory_nor_line_grows_without_end() {
        let node = Node::default();
        let count = HELD_MAX as u64 + 1;
        (0..count).for_each(|id| node.came(of(id)));
        assert_eq!(node.executed(), [HELD_MAX as u64], "it does not wait");
        node.orders.back();
        node.catch_up(&[]);
        (count..3 * REMEMBERED_MAX as u64).for_each(|id| node.came(of(id)));
        let state = node.orders.lock();
        assert_eq!(
            (state.executed.len(), state.oldest.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
    }
}
