/* Files are read once, secrets readable by others are refused, and the set is passed to a worker. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/files.h"
#include "given.h"

static char folder[] = "/tmp/test_files.XXXXXX";

static int make_folder(void **unused __attribute__((unused)))
{
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static char *path_of(const char *name)
{
    return xasprintf("%s/%s", folder, name);
}

static void write_bytes(const char *name, const char *bytes, size_t len, mode_t mode)
{
    char *path = path_of(name);
    FILE *file = fopen(path, "w");
    fwrite(bytes, 1, len, file);
    fclose(file);
    chmod(path, mode);
    free(path);
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    write_bytes(name, text, strlen(text), mode);
}

static int remove_folder(void **unused __attribute__((unused)))
{
    static const char *const names[] = {"a", "bytes", "live", "plain", "secret", "folder"};
    for (size_t i = 0; i < NELEMS(names); i++) {
        char *path = path_of(names[i]);
        remove(path);
        free(path);
    }
    return rmdir(folder);
}

static const struct file *get(struct files *files, const char *name, enum file_kind kind, size_t max,
                              char **ret_why)
{
    char *path = path_of(name);
    const struct file *file = files_get(files, path, kind, max, ret_why);
    free(path);
    return file;
}

static void assert_refused(const char *name, enum file_kind kind, size_t max, const char *expected)
{
    struct files *files = files_new(FILES_ALL);
    char *why = NULL;
    assert_null(get(files, name, kind, max, &why));
    assert_string_equal(why, expected);
    free(why);
    files_free(files);
}

TEST(file_is_read_completely_and_only_once)
{
    struct files *files = files_new(FILES_ALL);
    char *why;
    write_file("a", "first", 0644);
    const struct file *file = get(files, "a", FILE_PLAIN, 100, &why);
    assert_non_null(file);
    assert_null(why);
    assert_int_equal(file->len, 5);
    assert_string_equal(file->data, "first");
    write_file("a", "second", 0644);
    assert_ptr_equal(get(files, "a", FILE_PLAIN, 100, &why), file);
    assert_string_equal(file->data, "first");
    files_free(files);
    files_free(NULL);
}

TEST(file_may_have_the_maximum_size)
{
    struct files *files = files_new(FILES_ALL);
    char *why;
    write_file("a", "12345678", 0644);
    assert_non_null(get(files, "a", FILE_PLAIN, 8, &why));
    files_free(files);
    assert_refused("a", FILE_PLAIN, 7, "is larger than 7 bytes");
}

TEST(empty_file_is_accepted)
{
    struct files *files = files_new(FILES_ALL);
    char *why;
    write_file("a", "", 0644);
    const struct file *file = get(files, "a", FILE_PLAIN, 100, &why);
    assert_non_null(file);
    assert_int_equal(file->len, 0);
    assert_string_equal(file->data, "");
    files_free(files);
}

TEST(unreadable_path_is_refused_with_a_reason)
{
    char *path = path_of("folder");
    mkdir(path, 0755);
    free(path);
    assert_refused("nothing", FILE_PLAIN, 100, "cannot be read: No such file or directory");
    assert_refused("folder", FILE_PLAIN, 100, "is not a regular file");
    assert_refused("a/b", FILE_PLAIN, 100, "cannot be read: Not a directory");
    struct files *files = files_new(FILES_ALL);
    char *why = NULL;
    assert_null(files_get(files, "/dev/zero", FILE_PLAIN, 100, &why));
    assert_string_equal(why, "is not a regular file");
    free(why);
    files_free(files);
}

TEST(secret_readable_by_others_is_refused)
{
    static const mode_t modes[] = {0644, 0640, 0620, 0604, 0601};
    for (size_t i = 0; i < NELEMS(modes); i++) {
        char *expected = xasprintf("can be read by others (mode %04o); restrict it with chmod 600", modes[i]);
        write_file("secret", "sk-12345678", modes[i]);
        assert_refused("secret", FILE_SECRET, 100, expected);
        free(expected);
    }
    write_file("secret", "sk-12345678", 0600);
    struct files *files = files_new(FILES_ALL);
    char *why;
    assert_non_null(get(files, "secret", FILE_SECRET, 100, &why));
    files_free(files);
    write_file("secret", "sk-12345678", 0400);
    files = files_new(FILES_ALL);
    assert_non_null(get(files, "secret", FILE_SECRET, 100, &why));
    files_free(files);
}

TEST(sealed_set_round_trips_and_never_reads_the_disk)
{
    struct files *files = files_new(FILES_ALL);
    char *why = NULL;
    write_file("a", "line 1\nline 2\n", 0644);
    write_file("secret", "sk-12345678", 0600);
    get(files, "a", FILE_PLAIN, 100, &why);
    get(files, "secret", FILE_SECRET, 100, &why);
    struct files_image image;
    assert_int_equal(files_seal(files, &image), 0);
    assert_true(write(image.fd, "x", 1) < 0);
    files_free(files);

    struct files *other = files_unseal(image.fd);
    files_image_done(&image);
    assert_non_null(other);
    const struct file *a = get(other, "a", FILE_PLAIN, 100, &why),
                      *secret = get(other, "secret", FILE_SECRET, 100, &why);
    assert_string_equal(a->data, "line 1\nline 2\n");
    assert_string_equal(secret->data, "sk-12345678");
    assert_int_equal(secret->kind, FILE_SECRET);
    assert_null(get(other, "folder", FILE_PLAIN, 100, &why));
    assert_string_equal(why, "was not passed to this worker");
    free(why);
    files_free(other);
}

static void write_three(const char *text)
{
    write_file("a", text, 0644);
    write_file("live", text, 0644);
    write_file("secret", text, 0600);
}

static void assert_holds(struct files *files, const char *name, enum file_kind kind, const char *text)
{
    char *why;
    const struct file *file = get(files, name, kind, 100, &why);
    assert_non_null(file);
    assert_string_equal(file->data, text);
}

TEST(renewed_set_keeps_plain_files_and_rereads_secrets)
{
    const char *first = NULL;
    char *why;
    struct files *files = files_new(FILES_ALL);
    write_three("one");
    write_bytes("bytes", "a\0b", 3, 0644);
    get(files, "bytes", FILE_PLAIN, 100, &why);
    assert_holds(files, "a", FILE_PLAIN, "one");
    assert_holds(files, "live", FILE_LIVE, "one");
    struct files *renewed = files_renew(files, NULL);
    assert_holds(renewed, "live", FILE_LIVE, "one");
    assert_int_equal(files_changed(files, renewed, &first), 0);
    files_free(renewed);

    write_three("two");
    renewed = files_renew(files, NULL);
    assert_holds(renewed, "a", FILE_PLAIN, "one");
    assert_memory_equal(get(renewed, "bytes", FILE_PLAIN, 100, &why)->data, "a\0b", 4);
    assert_holds(renewed, "live", FILE_LIVE, "two");
    assert_holds(renewed, "secret", FILE_SECRET, "two");
    assert_int_equal(files_changed(files, renewed, &first), 2);
    assert_string_equal(strrchr(first, '/'), "/live");
    files_free(renewed);
    files_free(files);
}

TEST(stamp_of_a_set_changes_with_its_live_files)
{
    struct files *files = files_new(FILES_ALL);
    char *why, *path = path_of("secret");
    write_file("plain", "plain 1", 0600);
    write_file("live", "live 1", 0600);
    write_file("secret", "secret 1", 0600);
    get(files, "plain", FILE_PLAIN, 100, &why);
    get(files, "live", FILE_LIVE, 100, &why);
    get(files, "secret", FILE_SECRET, 100, &why);
    uint64_t before = files_stamp(files, false), mode, gone;
    write_file("plain", "plain 22", 0600);
    assert_true(files_stamp(files, true) == before);
    write_file("secret", "secret 1", 0400);
    assert_true((mode = files_stamp(files, true)) != before);
    remove(path);
    assert_true((gone = files_stamp(files, true)) != before && gone != mode);
    write_file("live", "live 22", 0600);
    assert_true(files_stamp(files, true) != gone);
    assert_true(files_stamp(files, false) == before);
    free(path);
    files_free(files);
}

static struct files *unsealed(const char *image, size_t len)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    assert_int_equal(write_full(fd, image, len), 0);
    struct files *files = files_unseal(fd);
    close(fd);
    return files;
}

TEST(truncated_image_is_rejected)
{
    static const char image[] = "taskproxy files 1\n0 3 /a\nabc1 2 /b\nde";
    for (size_t len = 0; len < sizeof(image) - 1; len++) {
        struct files *files = unsealed(image, len);
        bool between =
            len == strlen("taskproxy files 1\n") || len == strlen("taskproxy files 1\n0 3 /a\nabc");
        assert_int_equal(files != NULL, between);
        files_free(files);
    }
    struct files *files = unsealed(image, sizeof(image) - 1);
    assert_non_null(files);
    files_free(files);
}

TEST(image_of_another_format_is_rejected)
{
    static const char *const images[] = {"",
                                         "x",
                                         "taskproxy files 2\n",
                                         "taskproxy files 1 0 3 /a\nabc",
                                         "taskproxy files 1\n\n",
                                         "taskproxy files 1\n0\n",
                                         "taskproxy files 1\n0 4 /a\nabc",
                                         "taskproxy files 1\n0 18446744073709551615 /a\nabc",
                                         "taskproxy files 1\n0 -1 /a\nabc",
                                         "taskproxy files 1\n0 3/a\nabc",
                                         "taskproxy files 1\n0\n3 /a\nabc"};
    for (size_t i = 0; i < NELEMS(images); i++) {
        if (unsealed(images[i], strlen(images[i])) != NULL)
            fail_msg("taken: %s", images[i]);
    }
    assert_null(files_unseal(-1));
}

TEST(number_of_files_is_limited)
{
    struct files *files = files_new(FILES_ALL);
    char *why = NULL, slashes[1024];
    write_file("a", "x", 0644);
    memset(slashes, '/', sizeof(slashes));
    for (int n = 1; n < (int)sizeof(slashes) && why == NULL; n++) { /* the same file by different names */
        char *name = xasprintf("%s%.*sa", folder, n, slashes);
        files_get(files, name, FILE_PLAIN, 100, &why);
        free(name);
    }
    assert_string_equal(why, "exceeds the limit of 512 files");
    free(why);
    files_free(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_is_read_completely_and_only_once),
        cmocka_unit_test(file_may_have_the_maximum_size),
        cmocka_unit_test(empty_file_is_accepted),
        cmocka_unit_test(unreadable_path_is_refused_with_a_reason),
        cmocka_unit_test(secret_readable_by_others_is_refused),
        cmocka_unit_test(sealed_set_round_trips_and_never_reads_the_disk),
        cmocka_unit_test(renewed_set_keeps_plain_files_and_rereads_secrets),
        cmocka_unit_test(stamp_of_a_set_changes_with_its_live_files),
        cmocka_unit_test(truncated_image_is_rejected),
        cmocka_unit_test(image_of_another_format_is_rejected),
        cmocka_unit_test(number_of_files_is_limited),
    };
    return cmocka_run_group_tests_name("files", tests, make_folder, remove_folder);
}
