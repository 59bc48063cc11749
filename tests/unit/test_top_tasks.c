/* The ten most watched tasks, and the shared board that passes them to another process. */
#include "unit.h"

#include <string.h>

#include "lib/stats.h"

static struct top_tasks_list offered(const int64_t *watchers, size_t n)
{
    struct top_tasks_list list = {0};
    for (size_t i = 0; i < n; i++)
        top_tasks_offer(&list, "sora", "task_abc", watchers[i]);
    return list;
}

TEST(ten_most_watched_are_kept_in_order)
{
    static const int64_t watchers[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
    static const int64_t expected[] = {9, 8, 6, 5, 5, 5, 4, 3, 3, 2};
    struct top_tasks_list list = offered(watchers, NELEMS(watchers));
    assert_int_equal(list.n, TOP_TASKS_MAX);
    for (size_t i = 0; i < TOP_TASKS_MAX; i++)
        assert_int_equal(list.tasks[i].watchers, expected[i]);
}

TEST(only_a_prefix_of_an_id_is_shown)
{
    struct top_tasks_list list = {0};
    top_tasks_offer(&list, "sora", "task_secret", 3);
    top_tasks_offer(&list, "sora", "abcd", 2);
    top_tasks_offer(&list, "a provider whose name is longer than anyone would think", "task_secret", 1);
    assert_string_equal(list.tasks[0].name, "sora/task_s…");
    assert_string_equal(list.tasks[1].name, "sora/ab…");
    assert_non_null(strstr(list.tasks[2].name, "/task_s…"));
}

TEST(lists_of_several_processes_are_merged)
{
    struct top_tasks_list one = offered((const int64_t[]){5, 3}, 2),
                          other = offered((const int64_t[]){4, 1}, 2);
    top_tasks_merge(&one, &other);
    assert_int_equal(one.n, 4);
    assert_int_equal(one.tasks[1].watchers, 4);
    assert_int_equal(one.tasks[3].watchers, 1);
}

TEST(board_round_trips)
{
    struct top_tasks_board board = {0};
    struct top_tasks_list list = offered((const int64_t[]){2, 1}, 2), read;
    top_tasks_write(&board, &list);
    assert_true(top_tasks_read(&board, &read));
    assert_memory_equal(&read, &list, sizeof(list));
}

TEST(board_being_written_is_not_read)
{
    struct top_tasks_board board = {.version = 7};
    struct top_tasks_list read;
    assert_false(top_tasks_read(&board, &read));
    top_tasks_write(&board, &(struct top_tasks_list){0}); /* after a writer that died halfway */
    assert_true(top_tasks_read(&board, &read));
}

TEST(corrupt_board_is_harmless)
{
    struct top_tasks_board board;
    struct top_tasks_list read;
    memset(&board, 'x', sizeof(board));
    board.version = 2;
    assert_true(top_tasks_read(&board, &read));
    assert_int_equal(read.n, TOP_TASKS_MAX);
    assert_int_equal(strlen(read.tasks[0].name), TOP_TASKS_NAME - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_most_watched_are_kept_in_order),
        cmocka_unit_test(only_a_prefix_of_an_id_is_shown),
        cmocka_unit_test(lists_of_several_processes_are_merged),
        cmocka_unit_test(board_round_trips),
        cmocka_unit_test(board_being_written_is_not_read),
        cmocka_unit_test(corrupt_board_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
