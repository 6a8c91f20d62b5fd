/** Devices that would be counted twice or are not there to fail: partitions of disks, loopback, bridges, pseudo file systems. */

const partition =
  /^(?:(?:[shv]|xv)d[a-z]+\d+|(?:nvme\d+n|mmcblk)\d+p\d+|loop\d+|ram\d+|zram\d+|dm-\d+|md\d+|sr\d+|fd\d+)$/;
const virtualInterface =
  /^(?:lo\d*|all|docker.*|br-.*|veth.*|cni.*|cali.*|flannel.*|virbr.*|tun\d+|tap.*|ifb\d+|dummy\d+)$/;
const pseudoFilesystem =
  /^(?:autofs|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|fuse\.lxcfs|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|pstore|ramfs|rpc_pipefs|securityfs|squashfs|sysfs|tmpfs|tracefs)$/;

/** A whole disk; partitions and what lies on other devices (dm, md, loop) repeat their figures. */
export const isWholeDisk = (name: string): boolean => !partition.test(name);
export const isRealInterface = (name: string): boolean => !virtualInterface.test(name);
export const isRealFilesystem = (type: string): boolean => !pseudoFilesystem.test(type);
