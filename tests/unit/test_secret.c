/* Secrets: the contents of their files, systemd credentials, and the memory that holds them. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/files.h"

static char folder[] = "/tmp/test_secret.XXXXXX";

static int make_folder(void **unused __attribute__((unused)))
{
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **unused __attribute__((unused)))
{
    static const char *const names[] = {"key", "keys_key"};
    for (size_t i = 0; i < NELEMS(names); i++) {
        char *path = xasprintf("%s/%s", folder, names[i]);
        remove(path);
        free(path);
    }
    return rmdir(folder);
}

/* Writes a file with this text; the caller frees the path. */
static char *given_file(const char *text, size_t len, mode_t mode)
{
    char *path = xasprintf("%s/key", folder);
    FILE *file = fopen(path, "w");
    fwrite(text, 1, len, file);
    fclose(file);
    chmod(path, mode);
    return path;
}

/* The secret in the file, or the error; the caller frees with vault_free() or free(). */
static char *read_path(const char *path, char **ret_why)
{
    struct files *files = files_new(FILES_ALL);
    *ret_why = NULL;
    char *secret = secret_read(files, path, 8, ret_why);
    files_free(files);
    assert_true((secret == NULL) == (*ret_why != NULL));
    return secret;
}

static void assert_read(const char *path, const char *expected)
{
    char *why, *secret = read_path(path, &why);
    if (secret == NULL)
        fail_msg("%s: %s", path, why);
    assert_string_equal(secret, expected);
    vault_free(secret);
}

static void assert_refused(const char *path, const char *expected)
{
    char *why, *secret = read_path(path, &why);
    assert_null(secret);
    assert_string_equal(why, expected);
    free(why);
}

TEST(secret_is_the_single_line_of_its_file)
{
    static const char *const texts[] = {"sk-12345678", "sk-12345678\n", "sk-12345678\r\n"};
    for (size_t i = 0; i < NELEMS(texts); i++) {
        char *path = given_file(texts[i], strlen(texts[i]), 0600);
        assert_read(path, "sk-12345678");
        free(path);
    }
}

TEST(other_file_contents_are_refused_without_quoting_them)
{
    static const char line[] = "must contain one line of visible ASCII characters",
                      few[] = "must contain at least 8 characters";
    static const struct {
        const char *text, *why;
    } cases[] = {{"", few},
                 {"\n", few},
                 {"sk-1234\n", few},
                 {"sk-12345678\nsk-12345678\n", line},
                 {"sk-12345678\n\n", line},
                 {" sk-12345678", line},
                 {"sk-12345678\t", line},
                 {"sk-1234567\xc3\xa9", line},
                 {"sk-\x7f-2345678", line}};
    for (size_t i = 0; i < NELEMS(cases); i++) {
        char *path = given_file(cases[i].text, strlen(cases[i].text), 0600);
        assert_refused(path, cases[i].why);
        free(path);
    }
    char *path = given_file("sk-1234\0005678", 12, 0600);
    assert_refused(path, line);
    free(path);
    static const char large[4097] = "";
    path = given_file(large, sizeof(large), 0600);
    assert_refused(path, "is larger than 4096 bytes");
    free(path);
}

TEST(credential_is_a_file_in_credentials_directory)
{
    free(given_file("sk-12345678", 11, 0400));
    unsetenv("CREDENTIALS_DIRECTORY");
    assert_refused(
        "credential:key",
        "cannot be found: CREDENTIALS_DIRECTORY is not set (systemd sets it; when running by hand, "
        "set it to the folder that contains \"key\")");
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    assert_read("credential:key", "sk-12345678");
    assert_refused("credential:other", "cannot be read: No such file or directory");
    static const char *const no_names[] = {"credential:", "credential:..", "credential:../key",
                                           "credential:a/key"};
    for (size_t i = 0; i < NELEMS(no_names); i++)
        assert_refused(no_names[i], "is not a valid credential name");
}

TEST(credential_falls_back_to_the_key_directory)
{
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    char *path = given_file("sk-12345678", 11, 0400), *of_keys = xasprintf("%s/keys_key", folder);
    assert_int_equal(rename(path, of_keys), 0);
    assert_read("credential:key", "sk-12345678");
    free(given_file("sk-of-its-own", 13, 0400));
    assert_read("credential:key", "sk-of-its-own");
    free(path);
    free(of_keys);
}

TEST(credential_may_show_its_acl_mask_as_group_permissions)
{
    setenv("CREDENTIALS_DIRECTORY", folder, 1);
    char *path = given_file("sk-12345678", 11, 0440);
    assert_read("credential:key", "sk-12345678");
    assert_refused(path, "can be read by others (mode 0440); restrict it with chmod 600");
    free(path);
    static const mode_t modes[] = {0444, 0460, 0604};
    for (size_t i = 0; i < NELEMS(modes); i++) {
        free(given_file("sk-12345678", 11, modes[i]));
        char *expected = xasprintf("can be read by others (mode %04o); restrict it with chmod 600", modes[i]);
        assert_refused("credential:key", expected);
        free(expected);
    }
}

/* The line with this prefix in /proc/self/smaps, for the mapping that contains `address`. */
static void find_mapping(const void *address, const char *name, char line[static 256])
{
    FILE *smaps = fopen("/proc/self/smaps", "r");
    unsigned long from, to, at = (unsigned long)(uintptr_t)address;
    bool found = false;
    while (fgets(line, 256, smaps) != NULL) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            found = from <= at && at < to;
        else if (found && strncmp(line, name, strlen(name)) == 0)
            break;
    }
    fclose(smaps);
}

/* Whether smaps shows the effect of madvise(); under qemu it does not. */
static bool smaps_has_advice(void)
{
    char line[256];
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(page, 4096, MADV_DONTDUMP);
    find_mapping(page, "VmFlags:", line);
    munmap(page, 4096);
    return strstr(line, " dd") != NULL;
}

TEST(vault_is_excluded_from_core_dumps)
{
    char line[256];
    if (!smaps_has_advice()) {
        print_message("/proc/self/smaps does not show MADV_DONTDUMP here\n");
        skip();
    }
    char *secret = vault_strndup("sk-12345678", 11);
    assert_string_equal(secret, "sk-12345678");
    assert_false(vault_is_empty());
    find_mapping(secret, "VmFlags:", line);
    assert_non_null(strstr(line, " dd"));
    vault_free(secret);
    vault_free(NULL);
    assert_true(vault_is_empty());
}

TEST(vault_accepts_secrets_larger_than_a_page)
{
    char *secret = vault_alloc(10000);
    for (size_t i = 0; i < 10000; i++)
        assert_int_equal(secret[i], 0);
    memset(secret, 'x', 10000);
    vault_free(secret);
    assert_true(vault_is_empty());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secret_is_the_single_line_of_its_file),
        cmocka_unit_test(other_file_contents_are_refused_without_quoting_them),
        cmocka_unit_test(credential_is_a_file_in_credentials_directory),
        cmocka_unit_test(credential_falls_back_to_the_key_directory),
        cmocka_unit_test(credential_may_show_its_acl_mask_as_group_permissions),
        cmocka_unit_test(vault_is_excluded_from_core_dumps),
        cmocka_unit_test(vault_accepts_secrets_larger_than_a_page),
    };
    return cmocka_run_group_tests_name("secret", tests, make_folder, remove_folder);
}
