#!/bin/sh
# Process 1 of a machine, up to where its own file system begins; in new namespaces already.
#     boot.sh HOSTNAME LAYERS SHM_SIZE FOLDER
# LAYERS are lower layers of overlayfs, relative to the working directory: a path may hold what overlayfs
# separates by. FOLDER has upper/, work/, disk/ and root/; the number of this process out there goes to FOLDER/pid.
set -eu

hostname=$1 layers=$2 shm=$3 folder=$4

# /proc is still the one out there: it knows this process by its number out there.
read -r pid _ </proc/self/stat
echo "$pid" >"$folder/pid.new"
mv "$folder/pid.new" "$folder/pid"

root=$folder/root
# volatile: nothing is written to the real disk in a hurry, so switching off takes no time; what is in the
# layer is there for the next boot all the same. overlayfs asks to be told so by removing its mark.
find "$folder/work" -name incompat -exec rm -rf {} +
layers=lowerdir=$layers,upperdir=$folder/upper,workdir=$folder/work
mount -t overlay overlay -o "$layers,volatile" "$root"
cd "$root"
echo "$hostname" >/proc/sys/kernel/hostname
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec,ro sysfs sys
mount -t tmpfs -o mode=755,nosuid tmpfs run
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/pts dev/shm run/sshd
mkdir -m 1777 run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o "mode=1777,nosuid,nodev,size=$shm" tmpfs dev/shm
for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
    # shellcheck disable=SC2086        # name, major, minor
    set -- $device
    mknod -m 666 "dev/$1" c "$2" "$3"
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
# What an engine keeps lies on the real disk: overlayfs takes no layer that lies in another overlayfs.
mkdir -p var/lib/docker
mount --bind "$folder/disk" var/lib/docker
# The id of the kernel's boot is that of the machine's; what is in /tmp does not outlive a boot.
cat proc/sys/kernel/random/uuid >run/boot-id
mount --bind run/boot-id proc/sys/kernel/random/boot_id
find tmp -mindepth 1 -delete
mkdir -p .outside
pivot_root . .outside
exec chroot . /sbin/init
