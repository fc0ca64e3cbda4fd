/* A main for fuzz targets where there is no libFuzzer: runs files, all of a folder, or inputs at random.
 *
 *   run_x FILE|FOLDER ...      each as one input
 *   run_x --random COUNT SEED  so many inputs; the one that broke it is left in `broken-SEED` */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 1 << 16, RANDOM_MOST = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t input[MOST];
static int done;

static int run_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, input, sizeof input);

    if (fd >= 0)
        close(fd);
    if (size < 0) {
        perror(path);
        return 1;
    }
    LLVMFuzzerTestOneInput(input, (size_t)size);
    done++;
    return 0;
}

static int run_folder(const char *path)
{
    char name[4096];
    DIR *list = opendir(path);
    int failed = 0;

    if (!list) {
        perror(path);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        failed |= run_file(name);
    }
    closedir(list);
    return failed;
}

static uint64_t state;

static unsigned any(unsigned most)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 32) % most;
}

/* The input is a file while it runs: what breaks it can be run again. */
static int run_random(long count, unsigned long seed)
{
    char name[64];

    snprintf(name, sizeof name, "broken-%lu", seed);
    state = seed * 2654435761u + 88172645463325252u;
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (; done < count; done++) {
        size_t size = any(RANDOM_MOST);
        for (size_t i = 0; i < size; i++)
            input[i] = (uint8_t)any(256);
        if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, input, size, 0) != (ssize_t)size) {
            perror(name);
            return 1;
        }
        LLVMFuzzerTestOneInput(input, size);
    }
    close(fd);
    unlink(name);
    return 0;
}

int main(int count, char **arguments)
{
    struct stat about;
    int failed = 0;

    if (count == 4 && strcmp(arguments[1], "--random") == 0)
        failed = run_random(atol(arguments[2]), strtoul(arguments[3], NULL, 10));
    else
        for (int i = 1; i < count; i++)
            failed |= stat(arguments[i], &about) == 0 && S_ISDIR(about.st_mode) ? run_folder(arguments[i])
                                                                                : run_file(arguments[i]);
    printf("%d inputs\n", done);
    return failed || done == 0;
}
