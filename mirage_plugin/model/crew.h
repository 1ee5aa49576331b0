/* Work on a frame that several threads share.
 *
 * Each of them runs the same code on a `struct crew` of its own. A phase is a number of parts that need nothing of one
 * another: whoever is there takes one after the other, first of its own share, then of the others', and nobody leaves a
 * phase before all its parts are done. So a thread that has not come is not waited for, and one that comes late finds
 * nothing to do; it may have read what was given for the whole frame, and has written nothing. What a part comes to does
 * not depend on who does it.
 */
#ifndef MIRAGE_CREW_H
#define MIRAGE_CREW_H
#include <stdint.h>
#ifdef _WIN32
__declspec(dllimport) int __stdcall SwitchToThread(void);
#define YIELD() SwitchToThread()
#else
#include <sched.h>
#define YIELD() sched_yield()
#endif

enum { CREW = 8, PATIENCE = 4096 };

/* A cache line of zeros before the first thread comes. */
struct phase {
    int32_t taken[CREW]; /* of each thread's share */
    int32_t done;
    char rest[64 - 4 * (CREW + 1)];
};

struct crew {
    struct phase *phase; /* the present one; those to come lie behind it */
    int me, threads;
};

/* The next of `parts` for this thread, or -1 where all are taken. */
static inline int take(const struct crew *crew, int parts)
{
    for (int i = 0; i < crew->threads; i++) {
        const int whose = (crew->me + i) % crew->threads;
        const int from = parts * whose / crew->threads, to = parts * (whose + 1) / crew->threads;
        int32_t *taken = crew->phase->taken + whose;
        if (from + __atomic_load_n(taken, __ATOMIC_RELAXED) >= to) continue;
        const int part = from + __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);
        if (part < to) return part;
    }
    return -1;
}

/* A part that was taken is done. */
static inline void done(const struct crew *crew) { __atomic_fetch_add(&crew->phase->done, 1, __ATOMIC_RELEASE); }

/* Go on when all `parts` are done. */
static inline void together(struct crew *crew, int parts)
{
    for (int i = 0; __atomic_load_n(&crew->phase->done, __ATOMIC_ACQUIRE) < parts; i++) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
        if (i > PATIENCE) YIELD();
    }
    crew->phase++;
}

#endif
