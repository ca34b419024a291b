//! Users.

use fanfare::session::UserName;

use super::{Harness, LIMITS, name, seconds, session, sorted, start, user};

pub(crate) async fn a_name_is_taken_once(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let (ann, now) = (name("Ann"), start());
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    let mut second = user(&ann, now);
    second.email = "other@example.com".into();
    assert_eq!(store.add_user(second).await, Ok(false));
    let kept = store.user(&ann).await.expect("it answers");
    assert_eq!(kept, Some(user(&ann, now)));
}

pub(crate) async fn one_of_many_who_want_a_name_gets_it(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let ann = name("ann");
    let tasks = (0..20).map(|number| {
        let (store, mut user) = (store.clone(), user(&ann, start()));
        user.email = format!("{number}@example.com").into();
        tokio::spawn(async move {
            let email = user.email.clone();
            store
                .add_user(user)
                .await
                .expect("it answers")
                .then_some(email)
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut winners = Vec::new();
    for task in tasks {
        winners.extend(task.await.expect("no panic"));
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let kept = store.user(&ann).await.expect("it answers");
    assert_eq!(kept.expect("a user").email, winners[0]);
}

pub(crate) async fn a_user_is_found_in_any_case_and_form(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let rene = name("Ren\u{e9}");
    assert_eq!(store.add_user(user(&rene, start())).await, Ok(true));
    let other = rene.text().replace('\u{e9}', "e\u{301}").to_uppercase();
    let other = UserName::new(&other).expect("a name");
    assert_eq!(store.add_user(user(&other, start())).await, Ok(false));
    let found = store.user(&other).await.expect("it answers");
    assert_eq!(found.expect("a user").name.text(), rene.text());
    let nobody = store.user(&name("nobody")).await;
    assert_eq!(nobody, Ok(None));
}

pub(crate) async fn a_password_is_replaced_only_when_it_is_still_the_same(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let ann = name("ann");
    assert_eq!(store.replace_password(&ann, "kept", "new").await, Ok(false));
    assert_eq!(store.add_user(user(&ann, start())).await, Ok(true));
    assert_eq!(store.replace_password(&ann, "kept", "new").await, Ok(true));
    assert_eq!(
        store.replace_password(&ann, "kept", "lost").await,
        Ok(false)
    );
    let kept = store.user(&ann).await.expect("it answers").expect("a user");
    assert_eq!(&*kept.password, "new");
}

pub(crate) async fn a_role_is_set(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let ann = name("ann");
    assert_eq!(store.set_role(&ann, "admin").await, Ok(false));
    assert_eq!(store.user(&ann).await, Ok(None));
    assert_eq!(store.add_user(user(&ann, start())).await, Ok(true));
    assert_eq!(store.set_role(&ann, "admin").await, Ok(true));
    let kept = store.user(&ann).await.expect("it answers").expect("a user");
    assert_eq!(&*kept.role, "admin");
}

pub(crate) async fn a_user_goes_with_all_sessions(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let (ann, bob, now) = (name("ann"), name("bob"), start());
    assert_eq!(store.remove_user(&ann).await, Ok(None));
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
    let (first, second) = (session(&ann, "a", now), session(&ann, "b", now));
    let others = session(&bob, "a", now);
    for session in [&first, &second, &others] {
        store.add_session(session.clone()).await.expect("added");
    }
    let ended = store.remove_user(&ann).await.expect("it answers");
    let expected = sorted(vec![first.head.id, second.head.id]);
    assert_eq!(sorted(ended.expect("a user")), expected);
    assert_eq!(store.user(&ann).await, Ok(None));
    assert_eq!(store.session(first.head.id, now).await, Ok(None));
    assert_eq!(store.sessions(ann.text(), now).await, Ok(Vec::new()));
    assert_eq!(store.session(others.head.id, now).await, Ok(Some(others)));
    assert_eq!(store.add_user(user(&ann, now)).await, Ok(true));
}

pub(crate) async fn users_are_listed_in_pages(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    let mut names: Vec<UserName> = (0..5).map(|_| name("paged")).collect();
    for name in &names {
        assert_eq!(store.add_user(user(name, start())).await, Ok(true));
    }
    names.sort_by(|one, other| one.key().cmp(other.key()));
    // Whatever other cases added, each name comes once and in order.
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = store.users(&cursor, 2).await.expect("it answers");
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        cursor = last.name.key().to_owned();
        seen.extend(page.into_iter().map(|user| user.name));
    }
    assert!(seen.is_sorted_by(|one, other| one.key() < other.key()));
    seen.retain(|name| names.contains(name));
    assert_eq!(seen, names);
}

pub(crate) async fn idle_users_are_swept_and_busy_ones_stay(harness: &impl Harness) {
    let store = harness.store(LIMITS).await;
    // Long ago, so that no other case's user is swept.
    let now = start();
    let long_ago = now.before(seconds(400 * 86_400));
    let (idle, busy, recent) = (name("idle"), name("busy"), name("recent"));
    for (name, at) in [(&idle, long_ago), (&busy, long_ago), (&recent, now)] {
        assert_eq!(store.add_user(user(name, at)).await, Ok(true));
    }
    let open = session(&busy, "default", now);
    store.add_session(open).await.expect("added");
    let year_ago = now.before(seconds(365 * 86_400));
    let swept = store.sweep(now, year_ago).await.expect("it answers");
    assert!(swept.users.contains(idle.text()), "{swept:?}");
    assert_eq!(store.user(&idle).await, Ok(None));
    for name in [&busy, &recent] {
        let kept = store.user(name).await.expect("it answers");
        assert!(kept.is_some(), "{:?}", name.text());
    }
}
