/* Log lines that standard error does not accept at once.
 *
 * Each test runs in a child process, whose standard error is a pipe, a socket or a terminal that the child
 * reads as well. If a write blocks, the alarm kills the child. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "lib/log.h"
#include "lib/stats.h"

enum kind { PIPE, FOREIGN_PIPE, SOCKET, TERMINAL, SMALL_PIPE };
enum {
    MANY = 10000,
    FEW = 200,
    ALARM_S = 120
}; /* FEW lines fit into a one-page pipe and the backlog; MANY fit nowhere */

/* What the child has seen, shared with the parent. */
static struct seen {
    char text[512 * 1024]; /* read from standard error */
    size_t len;
    int64_t dropped; /* the value of the counter */
    int waits;       /* for standard error to become writable */
    int wait_ms;     /* the longest of them */
} * seen;

static int reader; /* the other end of standard error, non-blocking */
static bool reads_in_waits;

static void read_all(void)
{
    ssize_t n;
    while ((n = read(reader, seen->text + seen->len, sizeof(seen->text) - 1 - seen->len)) > 0)
        seen->len += (size_t)n;
}

/* These replace the library functions: no time passes, not even during a wait. */
uint64_t uv_hrtime(void)
{
    return 1;
}

int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    if (timeout_ms > 0) {
        seen->waits++;
        seen->wait_ms = timeout_ms > seen->wait_ms ? timeout_ms : seen->wait_ms;
        if (reads_in_waits)
            read_all();
    }
    return ppoll(fds, n, &(const struct timespec){0}, NULL);
}

/* ---- the child ---- */

static void log_lines(int n)
{
    for (int i = 1; i <= n; i++)
        log_debug("line %d.", i);
}

static void tick_until(const char *text)
{
    while (strstr(seen->text, text) == NULL) {
        log_tick();
        read_all();
    }
}

static bool open_terminal(int fds[2])
{
    struct termios raw;
    fds[0] = posix_openpt(O_RDWR | O_NOCTTY);
    if (fds[0] < 0 || grantpt(fds[0]) < 0 || unlockpt(fds[0]) < 0)
        return false;
    fds[1] = open(ptsname(fds[0]), O_RDWR | O_NOCTTY);
    if (tcgetattr(fds[1], &raw) < 0)
        return false;
    cfmakeraw(&raw);
    return tcsetattr(fds[1], TCSANOW, &raw) == 0;
}

static bool open_pair(enum kind kind, int fds[2])
{
    if (kind == TERMINAL)
        return open_terminal(fds);
    if (kind == SOCKET)
        return socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0;
    return pipe(fds) == 0 && (kind != SMALL_PIPE || fcntl(fds[1], F_SETPIPE_SZ, 4096) > 0) &&
           (kind != FOREIGN_PIPE || fchmod(fds[1], 0) == 0);
}

/* The parent must not hold the other end open, so the child opens both. */
static bool open_standard_error(enum kind kind)
{
    int fds[2];
    if (!open_pair(kind, fds))
        return false;
    reader = fds[0];
    return fcntl(reader, F_SETFL, O_NONBLOCK) == 0 && dup2(fds[1], STDERR_FILENO) >= 0 && close(fds[1]) == 0;
}

static _Noreturn void run_child(enum kind kind, void (*body)(void))
{
    alarm(ALARM_S);
    signal(SIGPIPE, SIG_IGN);
    if (!open_standard_error(kind) ||
        (kind == FOREIGN_PIPE && geteuid() == 0 && setresuid(65534, 65534, 65534) < 0))
        _exit(2);
    log_setup(LOG_DEBUG, LOG_TEXT, "unit");
    body();
    seen->dropped = stat_get(STAT_LOG_DROPPED);
    _exit(0);
}

static void run(enum kind kind, void (*body)(void))
{
    int status;
    memset(seen, 0, sizeof(*seen));
    pid_t pid = fork();
    if (pid == 0)
        run_child(kind, body);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- the lines that were read ---- */

/* Removes the next line and returns what follows the time, or NULL. */
static char *next_line(char **rest)
{
    char *line = strsep(rest, "\n");
    if (line == NULL || line[0] == '\0')
        return NULL;
    assert_true(strlen(line) > 25 && line[23] == 'Z' && line[24] == ' '); /* the line is whole */
    return line + 25;
}

/* Counts the lines from "line 1." that have been read in this order; also returns the line that follows
 * them. */
static int count_lines(char **rest, char **ret_next)
{
    char expected[64];
    for (int n = 0;; n++) {
        snprintf(expected, sizeof(expected), "debug unit: line %d.", n + 1);
        *ret_next = next_line(rest);
        if (*ret_next == NULL || strcmp(*ret_next, expected) != 0)
            return n;
    }
}

static void assert_lines(int n)
{
    char *rest = seen->text, *after;
    assert_int_equal(count_lines(&rest, &after), n);
    assert_null(after);
}

/* ---- tests ---- */

static void stall(void)
{
    log_lines(MANY);
    read_all();
    tick_until("dropped");
    log_debug("the end");
    tick_until("the end");
}

static void assert_dropped_lines_are_reported(enum kind kind)
{
    char report[128], *rest = seen->text, *next;
    run(kind, stall);
    int written = count_lines(&rest, &next);
    snprintf(report, sizeof(report), "warn unit: %d log lines dropped: standard error did not accept them",
             MANY - written);
    assert_string_equal(next, report);
    assert_string_equal(next_line(&rest), "debug unit: the end");
    assert_string_equal(rest, "");
    assert_true(written * 40 > LOG_BACKLOG_MAX && written < MANY);
    assert_int_equal(seen->dropped, MANY - written);
    assert_int_equal(seen->waits, 0);
}

TEST(stalled_pipe_does_not_block_and_dropped_lines_are_reported)
{
    assert_dropped_lines_are_reported(PIPE);
}

TEST(stalled_pipe_of_another_user_does_not_block)
{
    assert_dropped_lines_are_reported(FOREIGN_PIPE);
}

TEST(stalled_socket_does_not_block)
{
    assert_dropped_lines_are_reported(SOCKET);
}

TEST(stopped_terminal_does_not_block)
{
    assert_dropped_lines_are_reported(TERMINAL);
}

static void stall_shortly(void)
{
    log_lines(FEW);
    tick_until("line 200.");
}

TEST(no_line_is_dropped_while_the_backlog_has_room)
{
    run(SMALL_PIPE, stall_shortly);
    assert_lines(FEW);
    assert_int_equal(seen->dropped, 0);
}

static void lose_and_regain_reader(void)
{
    close(reader);
    log_lines(FEW - 1);
    reader = open("/proc/self/fd/2", O_RDONLY | O_NONBLOCK);
    log_debug("line 200.");
    tick_until("line 200.");
}

TEST(lines_are_kept_while_nothing_reads_the_pipe)
{
    run(PIPE, lose_and_regain_reader);
    assert_lines(FEW);
    assert_int_equal(seen->dropped, 0);
}

static void finish_with_reader(void)
{
    log_lines(FEW);
    reads_in_waits = true;
    log_finish();
    read_all();
}

TEST(backlog_is_written_before_the_process_exits)
{
    run(SMALL_PIPE, finish_with_reader);
    assert_lines(FEW);
    assert_true(seen->waits > 0);
}

static void finish_without_reader(void)
{
    log_lines(FEW);
    log_finish();
    read_all();
}

TEST(process_that_exits_waits_once_and_counts_what_is_left)
{
    run(SMALL_PIPE, finish_without_reader);
    assert_int_equal(seen->waits, 1);
    assert_in_range(seen->wait_ms, 1, LOG_FINISH_MS);
    assert_in_range(seen->dropped, 1, FEW - 1);
    assert_lines(FEW - (int)seen->dropped);
}

static void finish_after_reader(void)
{
    log_lines(FEW);
    close(reader);
    log_finish();
}

TEST(process_that_exits_does_not_wait_for_a_closed_pipe)
{
    run(SMALL_PIPE, finish_after_reader);
    assert_int_equal(seen->waits, 0);
    assert_in_range(seen->dropped, 1, FEW - 1);
}

static void look_at_standard_error(void)
{
    seen->waits = fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK;
}

TEST(standard_error_itself_stays_blocking)
{
    run(PIPE, look_at_standard_error);
    assert_int_equal(seen->waits, 0);
    run(TERMINAL, look_at_standard_error);
    assert_int_equal(seen->waits, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalled_pipe_does_not_block_and_dropped_lines_are_reported),
        cmocka_unit_test(stalled_pipe_of_another_user_does_not_block),
        cmocka_unit_test(stalled_socket_does_not_block),
        cmocka_unit_test(stopped_terminal_does_not_block),
        cmocka_unit_test(no_line_is_dropped_while_the_backlog_has_room),
        cmocka_unit_test(lines_are_kept_while_nothing_reads_the_pipe),
        cmocka_unit_test(backlog_is_written_before_the_process_exits),
        cmocka_unit_test(process_that_exits_waits_once_and_counts_what_is_left),
        cmocka_unit_test(process_that_exits_does_not_wait_for_a_closed_pipe),
        cmocka_unit_test(standard_error_itself_stays_blocking),
    };
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED)
        return EXIT_FAILURE;
    return cmocka_run_group_tests_name("log_backlog", tests, NULL, NULL);
}
