//! Who is present in one channel. Sans-IO; it tells who is new and who went, and delivers nothing.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::broker::Presence;
use crate::model::{ClientId, Member, UserId};

/// A member in the order of the client ids. The id is not copied out of the member: with the tree's nodes two thirds
/// full that leaves about 12 bytes each beside the 80 of the member itself, at the price of a cache miss a comparison,
/// which joins are rare enough to pay. A hash table would be as small, but rehashing a large one holds the lock long.
#[derive(Debug)]
struct ByClient(Arc<Member>);

impl Borrow<ClientId> for ByClient {
    fn borrow(&self) -> &ClientId {
        &self.0.client
    }
}

impl Ord for ByClient {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.client.cmp(&other.0.client)
    }
}

impl PartialOrd for ByClient {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByClient {
    fn eq(&self, other: &Self) -> bool {
        self.0.client == other.0.client
    }
}

impl Eq for ByClient {}

/// The members of a channel, once for each client.
#[derive(Debug, Default)]
pub(super) struct Members {
    clients: BTreeSet<ByClient>,
    /// On how many connections each user is: whoever asks must not wait until all are counted.
    users: BTreeMap<UserId, u32>,
}

impl Members {
    /// Adds a member; whether the client is new. Of a client that is present already the newer member stays.
    pub(super) fn join(&mut self, member: Arc<Member>) -> bool {
        *self.users.entry(member.user.clone()).or_default() += 1;
        let former = self.clients.replace(ByClient(member));
        if let Some(former) = &former {
            self.discount(&former.0.user);
        }
        former.is_none()
    }

    /// Removes a client; its member if it was present.
    pub(super) fn leave(&mut self, client: ClientId) -> Option<Arc<Member>> {
        let member = self.clients.take(&client)?.0;
        self.discount(&member.user);
        Some(member)
    }

    fn discount(&mut self, user: &UserId) {
        if let Some(connections) = self.users.get_mut(user) {
            *connections -= 1;
            if *connections == 0 {
                self.users.remove(user);
            }
        }
    }

    /// Whether nobody is present.
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// How many there are, and the first `limit` of them by their client ids. Clients without a user count as one user
    /// together.
    pub(super) fn summary(&self, limit: usize) -> Presence {
        let members = self.clients.iter().take(limit);
        Presence {
            members: members.map(|member| Arc::clone(&member.0)).collect(),
            clients: self.clients.len(),
            users: self.users.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(client: u128, user: &str) -> Arc<Member> {
        Arc::new(Member {
            client: ClientId::from_bits(client),
            user: Arc::from(user),
            info: None,
        })
    }

    #[test]
    fn a_client_that_joins_twice_is_one_member_and_the_newer_stays() {
        let mut members = Members::default();
        assert!(members.join(member(1, "ann")));
        assert!(!members.join(member(1, "bob")));
        let presence = members.summary(9);
        assert_eq!(presence.members, [member(1, "bob")]);
        assert_eq!((presence.clients, presence.users), (1, 1));
    }

    #[test]
    fn a_client_leaves_once() {
        let mut members = Members::default();
        members.join(member(1, "ann"));
        assert_eq!(
            members.leave(ClientId::from_bits(1)),
            Some(member(1, "ann"))
        );
        assert_eq!(members.leave(ClientId::from_bits(1)), None);
        assert!(members.is_empty());
        assert_eq!(members.summary(9).users, 0);
    }

    #[test]
    fn all_are_counted_and_the_first_by_client_id_listed() {
        let mut members = Members::default();
        for (client, user) in [(3, "ann"), (1, "bob"), (2, "ann")] {
            members.join(member(client, user));
        }
        let presence = members.summary(2);
        assert_eq!(presence.members, [member(1, "bob"), member(2, "ann")]);
        assert_eq!((presence.clients, presence.users), (3, 2));
    }

    #[test]
    fn a_member_with_its_reference_counts_takes_80_bytes() {
        // The bound that the comment on `ByClient` counts with; 16 bytes of counts stand before the member.
        assert!(size_of::<Member>() + 16 <= 80);
    }
}
